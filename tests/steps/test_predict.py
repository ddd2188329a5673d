"""Predictions of a trained network: tracked, answered on the terminal, and refused."""

import json
import os
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from pipeline.model_files import checkpoint
from pipeline.model_files.classifier import Classifier
from pipeline.text import from_cell, shown
from tests.conftest import Workplace
from tests.data.test_hostile import broken, honest, write_hostile

PER_PART = {"train": 60, "val": 30, "test": 15}  # images of each class
CLASSES = ["0", "1", "4", "7", "=8"]
RECIPE = {
    "experiment": "none",
    "dataset": "folder",
    "image_size": 16,
    "width": 8,
    "batch_size": 16,
    "epochs": 5,
    "resize": "pad",
    "max_lr": 0.01,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Scanned digits as photos. One in ten of validation and test has a wrong class, so that there are errors."""
    root = tmp_path_factory.mktemp("data") / "photos"
    digits = load_digits()
    for position, name in enumerate(CLASSES):
        images = digits.images[digits.target == int(name[-1])]
        start = 0
        for part, count in PER_PART.items():
            for number, image in enumerate(images[start : start + count]):
                wrong = part != "train" and number % 10 == 0
                folder = root / part / CLASSES[(position + wrong) % len(CLASSES)]
                folder.mkdir(parents=True, exist_ok=True)
                pixels = Image.fromarray((image * 15.9).astype(np.uint8)).resize((24, 28))
                pixels.save(folder / f"{name}_{number}.png")
            start += count
    return root


@pytest.fixture(scope="module")
def workplace(photos, tmp_path_factory):
    """A workplace with a finished training, and its images in a folder that a test can remove."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    assert place.run("train", **RECIPE, data_dir=photos) == 0
    return place


@pytest.fixture
def read(workplace, tmp_path):
    """Reads a table of the newest run of a step."""

    def table(name, step="predict"):
        file = workplace.client.download_artifacts(workplace.runs(step)[0].info.run_id, name, str(tmp_path))
        texts = ["class", "predicted", "path", *(f"class_{place}" for place in range(2, 6))]
        return pd.read_csv(file, dtype=dict.fromkeys(texts, str))

    return table


@pytest.fixture(scope="module")
def tracked(workplace, photos):
    """The first prediction run, on the test images."""
    assert workplace.run("predict", images=photos / "test") == 0
    return workplace.runs("predict")[0]


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    draw = np.random.default_rng(0)
    for number in range(30):
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.jpg", quality=95)
    return folder


def test_predict_and_evaluate_agree_on_the_test_images(workplace, tracked, read):
    assert workplace.run("evaluate") == 0
    evaluated = read("predictions.csv", "evaluate").set_index("name")
    predicted = read("predictions.csv")
    assert len(predicted) == len(evaluated) == 15 * len(CLASSES)
    beside = evaluated.loc[[path.partition("photos/")[2] for path in predicted["path"]]]
    assert predicted["class"].tolist() == beside["predicted"].tolist()
    assert predicted["set"].tolist() == beside["set"].tolist()
    sets = evaluated["set"].map(from_cell).map(json.loads)
    covered = [true.removeprefix("'") in names for true, names in zip(evaluated["true"].astype(str), sets, strict=True)]
    numbers = workplace.runs("evaluate")[0].data.metrics
    assert numbers["test/set_coverage"] == pytest.approx(np.mean(covered))
    assert numbers["test/set_size"] == pytest.approx(sets.map(len).mean()) == tracked.data.metrics["predict/set_size"]
    assert numbers["test/single_sets"] == pytest.approx((sets.map(len) == 1).mean())
    by_class, by_size = read("sets.csv", "evaluate"), read("set_sizes.csv", "evaluate")
    for table in (by_class, by_size):
        assert (table["coverage"] * table["images"]).sum() == pytest.approx(sum(covered))
    assert np.allclose(predicted["confidence"], beside["confidence"], atol=1e-5)
    for place in range(2, 6):
        columns = "p/" + predicted[f"class_{place}"].str.removeprefix("'")
        values = [beside.iloc[row][column] for row, column in enumerate(columns)]
        assert np.allclose(predicted[f"probability_{place}"], values, atol=1e-5)


def test_a_run_of_predict_stores_its_training_its_images_and_the_calibration(workplace, tracked, photos):
    training = workplace.runs("train")[0].info.run_id
    assert {"train.run_id": training, "checkpoint": "best", "dataset": "folder"}.items() <= tracked.data.tags.items()
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["run_id"] == training
    assert tracked.data.params["images"] == str(photos / "test")
    numbers = tracked.data.metrics
    assert numbers["predict/images"] == 75 and numbers["predict/images_per_second"] > 0
    assert numbers["weights/num_images"] == 30 * len(CLASSES)
    of_training = workplace.runs("train")[0].data.metrics
    assert all(of_training[name] == value for name, value in numbers.items() if name.startswith("weights/"))
    assert numbers["weights/nll_after"] <= numbers["weights/nll_before"]
    note = tracked.data.tags["mlflow.note.content"]
    assert f"temperature {numbers['weights/temperature']:.3f}" in note
    assert f"ECE {numbers['weights/ece_before']:.4f} before and {numbers['weights/ece_after']:.4f} after" in note
    files = workplace.artifacts(tracked.info.run_id)
    assert {"predictions.csv", "classes.csv", "contact_sheet.png", "params.json"} <= files
    assert "left_out.csv" not in files


def test_noise_is_flagged_as_unlike_the_training_images_and_validation_images_are_not(
    workplace, photos, noise, read, tmp_path
):
    assert workplace.run("predict", images=noise, maps="true", num_shown=3) == 0
    noisy = workplace.runs("predict")[0]
    assert read("predictions.csv")["unlike"].mean() > 0.9
    assert noisy.data.metrics["predict/unlike"] > 27
    assert workplace.run("predict", images=f"{photos}/val/*/*.png", num_shown=0) == 0
    familiar = workplace.runs("predict")[0]
    assert read("predictions.csv")["unlike"].sum() == 6  # the limit is distance number ceil(0.95 * 151) = 144 of 150
    assert "contact_sheet.png" in workplace.artifacts(noisy.info.run_id)
    assert workplace.run("predict", images=noise, num_shown=3) == 0
    sheets = [
        Path(workplace.client.download_artifacts(run.info.run_id, "contact_sheet.png", str(tmp_path))).read_bytes()
        for run in (noisy, workplace.runs("predict")[0])
    ]
    assert sheets[0] != sheets[1]  # with maps, and without
    assert "contact_sheet.png" not in workplace.artifacts(familiar.info.run_id)


def test_predict_and_the_served_and_the_exported_model_give_the_same_calibrated_probabilities(
    workplace, photos, read, tmp_path
):
    paths = sorted((photos / "test").glob("*/*.png"))
    assert workplace.run("predict", images=photos / "test", precision="fp32", num_shown=0) == 0
    table = read("predictions.csv").set_index("path").loc[[str(path) for path in paths]]
    predicted = np.empty((len(paths), len(CLASSES)))
    for place in range(1, 6):
        name, value = ("class", "confidence") if place == 1 else (f"class_{place}", f"probability_{place}")
        columns = [CLASSES.index(each.removeprefix("'")) for each in table[name]]
        predicted[np.arange(len(paths)), columns] = table[value]

    training = workplace.runs("train")[0]
    (output,) = training.outputs.model_outputs
    served = mlflow.pyfunc.load_model(workplace.client.get_logged_model(output.model_id).artifact_location)
    answered = served.predict(pd.DataFrame({"image": [path.read_bytes() for path in paths]}))
    np.testing.assert_allclose(answered[[f"p/{name}" for name in CLASSES]], predicted, atol=1e-6)

    assert workplace.run("export") == 0
    exported = workplace.client.download_artifacts(workplace.runs("export")[0].info.run_id, "model.onnx", str(tmp_path))
    weights = workplace.client.download_artifacts(training.info.run_id, "weights/best.safetensors", str(tmp_path))
    classifier = Classifier.load(Path(weights))
    images = np.stack([classifier.read(str(path)) for path in paths])
    found, *marks = onnxruntime.InferenceSession(exported).run(
        ["probabilities", "unsure", "unlike"], {"images": images}
    )
    np.testing.assert_allclose(found, predicted, atol=1e-6)
    for name, mark in zip(("unsure", "unlike"), marks, strict=True):
        assert table[name].tolist() == answered[name].tolist() == mark.tolist()
    assert table["set"].map(from_cell).map(json.loads).tolist() == answered["set"].tolist()
    assert 0 < table["unsure"].sum() < len(table)

    # The temperature is an exponent of the probabilities. Without it, they are others.
    fitted = training.data.metrics["weights/temperature"]
    assert classifier.temperature == fitted and abs(fitted - 1) > 0.05
    bare = Classifier(classifier.model, classifier.description).probabilities(images) ** (1 / fitted)
    np.testing.assert_allclose(bare / bare.sum(axis=1, keepdims=True), predicted, atol=1e-6)


LINE = r"{}: \S+ \d+\.\d %, then \S+ \d+\.\d %"


def test_named_photos_are_answered_in_a_line_each_and_leave_no_run(workplace, tracked, photos, noise, capsys):
    before = len(workplace.runs())
    first, second = sorted((photos / "test/0").glob("*.png"))[:2]
    broken_photo = noise.parent / "broken.jpg"
    broken_photo.write_bytes(b"\xff\xd8 no picture")
    assert workplace.run("predict", first, second, broken_photo, noise / "3.jpg") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 3
    for line, path in zip(lines, (first, second, noise / "3.jpg"), strict=True):
        assert re.match(LINE.format(re.escape(str(path))), line)
    assert "unlike the training images" in lines[2]
    assert [line.partition(": ")[0] for line in err.splitlines()] == [str(broken_photo)]
    assert len(workplace.runs()) == before


def test_a_set_of_several_classes_is_printed_and_a_coverage_out_of_reach_is_explained(workplace, photos, capsys):
    paths = sorted((photos / "test/0").glob("*.png"))[:5]
    assert workplace.run("predict", *paths, set_coverage=0.99) == 0
    out, err = capsys.readouterr()
    assert re.search(r"\d+\.\d %; set for 99 %: \S+, \S+", out) and not err
    assert workplace.run("predict", *paths, set_coverage=0.999) == 0
    out, err = capsys.readouterr()
    needed = "set_coverage=0.999 needs 999 validation images, and there are 150"
    assert "set for" not in out and err.splitlines() == [f"no sets of classes: {needed}"]


def test_photos_in_formats_that_are_not_read_are_counted(workplace, tracked, photos, tmp_path, capsys):
    shutil.copy(next((photos / "test/0").glob("*.png")), tmp_path)
    (tmp_path / "1.nef").write_bytes(b"x")
    expected = "left out: 1 .nef (not read: convert them to JPEG)"
    assert workplace.run("predict", tmp_path) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err.splitlines() == [f"photos {expected}"]
    assert workplace.run("predict", images=tmp_path, num_shown=0) == 0
    assert expected in workplace.runs("predict")[0].data.tags["mlflow.note.content"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nothere.jpg"], ["nothere.jpg: no such file or folder"]),
        (["--images", "/no/such/*.jpg"], ["/no/such/*.jpg: no such file or folder"]),
        (["--images", os.devnull], ["/dev/null", "a pipe, socket or device"]),
        (["--images", "state"], ["state has no image"]),
        ([], ["images=<folder, photo or glob>"]),
        (["a.jpg", "--images", "b.jpg"], ["images=<folder, photo or glob>"]),
        (["--images", "x", "--top_k", "0"], ["top_k=0"]),
        (["--images", "x", "--maps", "perhaps"], ["maps=perhaps"]),
        (["--photos", "x"], ["--photos"]),
    ],
)
def test_bad_arguments_are_refused_in_one_line_and_leave_no_run(workplace, capsys, arguments, parts):
    before = len(workplace.runs())
    assert workplace.run("predict", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ")
    for part in parts:
        assert part in err
    assert len(workplace.runs()) == before


def test_hostile_files_are_named_and_the_others_predicted(workplace, tracked, tmp_path, read):
    folder = tmp_path / "=hostile\n<b>"
    folder.mkdir()
    write_hostile(folder)
    assert workplace.run("predict", images=folder, num_shown=20) == 0
    assert {*read("predictions.csv")["path"]} == {shown(f"{folder}/{name}") for name in honest()}
    left_out = read("left_out.csv")
    assert {*left_out["file"]} == {shown(f"{folder}/bad/{name}") for name in broken()}
    assert left_out["reason"].str.len().min() > 0
    run = workplace.runs("predict")[0]
    assert run.data.metrics["predict/left_out"] == len(broken())
    assert f"{len(broken())} named in left_out.csv" in run.data.tags["mlflow.note.content"]
    assert "contact_sheet.png" in workplace.artifacts(run.info.run_id)


def test_the_run_fails_and_names_the_files_if_no_image_is_readable(workplace, tracked, tmp_path, read, capsys):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    assert workplace.run("predict", images=tmp_path) == 2
    assert "none of the 2 files is a readable image" in capsys.readouterr().err
    assert workplace.runs("predict")[0].info.status == "FAILED"
    assert read("left_out.csv")["file"].tolist() == [f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"]


def test_predict_needs_no_training_images(workplace, photos, tmp_path, read):
    kept = shutil.copytree(photos / "test/0", tmp_path / "kept")
    unplugged = photos.with_name("unplugged")
    photos.rename(unplugged)
    try:
        for checkpoint_name in ("best", "last"):
            assert workplace.run("predict", images=kept, checkpoint=checkpoint_name, num_shown=2) == 0
            assert {"distance", "unlike"} <= {*read("predictions.csv").columns}
            assert "temperature" in workplace.runs("predict")[0].data.tags["mlflow.note.content"]
    finally:
        unplugged.rename(photos)


def test_weights_of_an_earlier_version_predict_without_calibration_and_a_message_says_so(
    workplace, photos, read, capsys
):
    artifacts = workplace.runs("train")[0].info.artifact_uri.removeprefix("file://")
    path = Path(artifacts, "weights/best.safetensors")
    kept = path.read_bytes()
    tensors, described = checkpoint.load(path)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("calibration/")}
    checkpoint.save(path, own, {name: value for name, value in described.items() if name != "calibration"})
    try:
        assert workplace.run("predict", images=photos / "test/0", num_shown=0) == 0
    finally:
        path.write_bytes(kept)
    assert "neither calibrated nor compared with the training images" in capsys.readouterr().err
    assert not {"distance", "unlike"} & {*read("predictions.csv").columns}
    assert "not calibrated" in workplace.runs("predict")[0].data.tags["mlflow.note.content"]


def test_predictions_of_a_training_without_validation_are_not_calibrated_and_say_so(photos, tmp_path, capsys):
    place = Workplace(tmp_path)
    shutil.copytree(photos / "train", tmp_path / "flat")
    recipe = {**RECIPE, "width": 4, "epochs": 1, "valid_fraction": 0}
    assert place.run("train", **recipe, data_dir=tmp_path / "flat") == 0
    capsys.readouterr()
    assert place.run("predict", images=photos / "test/0", num_shown=0) == 0
    assert "has no validation split" in capsys.readouterr().err
    (run,) = place.runs("predict")
    assert "not calibrated" in run.data.tags["mlflow.note.content"]
    assert "weights/temperature" not in run.data.metrics
