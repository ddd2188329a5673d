"""The doctor as a user calls it: on folders with faults that the tests make, and on one without faults."""

import json
import unicodedata
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from pipeline import data
from tests.conftest import Workplace
from tests.data.test_detail import grain
from tests.doctor.test_duplicates import scenes
from tests.steps.test_probe import draw

QUICK = {"experiment": "none", "dataset": "folder", "image_size": 48, "label_folds": 2, "label_epochs": 12}
TINTS = {"blue": (0.35, 0.5, 1.0), "red": (1.0, 0.5, 0.35)}


def draw_two_colours(root, seed=0, per_class=48):
    """A folder without faults: scenes of two classes in different colours, in train and test. Returns `root`."""
    for part, count in (("train", per_class), ("test", 20)):
        for offset, (name, tint) in enumerate(TINTS.items()):
            (root / part / name).mkdir(parents=True)
            for number, scene in enumerate(scenes(count, seed=seed + 10 * offset + (part == "test"))):
                fine = 6 * grain(48, 48, 1000 * offset + count + number)[..., None]
                pixels = scene.transpose(1, 2, 0) * np.array(tint) + fine
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / part / name / f"{number:03}.png")
    return root


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


def tables(workplace, tmp_path):
    """The tables of the run by name, and the run."""
    (run,) = workplace.runs("doctor")
    names = ("class_counts", "duplicates", "suspect_labels", "odd_images")
    fetch = workplace.client.download_artifacts
    return {name: pd.read_csv(fetch(run.info.run_id, f"{name}.csv", str(tmp_path))) for name in names}, run


def test_every_planted_fault_is_named_in_its_table_and_shown(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos")
    train, test = root / "train", root / "test"
    (train / "blue" / "000.png").rename(train / "red" / "swapped.png")
    (train / "red" / "001.png").rename(train / "blue" / "swapped.png")
    (test / "blue" / "copy.png").write_bytes((train / "blue" / "002.png").read_bytes())
    Image.open(train / "red" / "003.png").save(test / "red" / "again.jpg", quality=60)
    Image.new("RGB", (48, 48), "grey").save(train / "red" / "blank.png")
    Image.open(train / "blue" / "004.png").resize((12, 12)).resize((12, 14)).save(test / "blue" / "tiny.png")
    Image.open(train / "blue" / "005.png").resize((480, 48)).save(test / "blue" / "long.png")
    Image.open(train / "blue" / "006.png").filter(ImageFilter.GaussianBlur(5)).save(train / "blue" / "soft.png")
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(test / "red" / "noise.png")

    assert workplace.run("doctor", **QUICK, data_dir=root) == 0
    found, run = tables(workplace, tmp_path)

    leaks = found["duplicates"][found["duplicates"]["image_split"] == "test"]
    assert {tuple(row) for row in leaks[["image", "twin", "kind"]].to_numpy()} == {
        ("test/blue/copy.png", "train/blue/002.png", "exact"),
        ("test/red/again.jpg", "train/red/003.png", "near"),
    }
    suspects = found["suspect_labels"]
    assert {"train/red/swapped.png", "train/blue/swapped.png"} <= {*suspects["image"][:4]}
    assert suspects.set_index("image")["suggested"]["train/red/swapped.png"] == "blue"
    odd = found["odd_images"].set_index("image")["why"]
    assert odd["train/red/blank.png"] == "blank"
    assert "tiny" in odd["test/blue/tiny.png"]
    assert "extreme aspect" in odd["test/blue/long.png"]
    assert "blurred" in odd["train/blue/soft.png"]
    assert "unlike all others" in odd["test/red/noise.png"]
    assert found["class_counts"].set_index("class").loc["blue"].sum() == 48 + 20 + 4

    note, said = run.data.tags["mlflow.note.content"], capsys.readouterr().err
    for text in (note, said):
        assert "test images in train too: 2 (1 exactly)" in text
        assert "1 blank" in text
        assert "suspect" in text
    files = workplace.artifacts(run.info.run_id)
    assert {"class_counts.png", "duplicates.png", "suspect_labels.png", "odd_images.png"} <= files
    assert run.data.metrics["doctor/odd_images"] == len(odd)


def read(root, labels=""):
    sizes = {"image_size": 48, "valid_fraction": 0.1, "limit_train": 0, "limit_test": 0}
    return data.load("folder", data_dir=root, labels=str(labels), **sizes)


def test_the_label_files_of_the_doctor_are_read_back_unchanged_or_with_corrections(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos")
    (root / "train/blue/000.png").rename(root / "train/red/=swapped, twice.png")
    Image.new("RGB", (48, 48), "grey").save(root / "train/red/blank.png")
    (root / "train/blue/copy.png").write_bytes((root / "train/red/007.png").read_bytes())
    assert workplace.run("doctor", **QUICK, data_dir=root) == 0
    (run,) = workplace.runs("doctor")
    fetched = {
        name: Path(workplace.client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        for name in ("labels.csv", "label_studio.json", "label_studio.xml")
    }
    before = read(root)
    for name in ("labels.csv", "label_studio.json"):
        untouched = read(root, fetched[name])
        for part in ("train", "valid", "test"):
            assert getattr(untouched, part).digest() == getattr(before, part).digest()

    table = pd.read_csv(fetched["labels.csv"], keep_default_na=False)
    assert table.columns.tolist() == ["file", "label", "suggested_label", "exclude", "reason", "split"]
    assert (table["reason"] == "").is_monotonic_increasing and len(table) == 138
    doubts = table.set_index("file")
    swapped = next(name for name in doubts.index if "swapped" in name)
    assert doubts["suggested_label"][swapped] == "blue" and doubts["reason"][swapped].startswith("looks like blue (")
    assert doubts["reason"]["train/red/blank.png"].endswith("blank")
    assert "exact copy of train/red/007.png, which is red" in doubts["reason"]["train/blue/copy.png"]

    table.loc[table["file"] == swapped, "label"] = "blue"
    table.loc[table["file"].isin(["train/red/blank.png", "train/blue/copy.png"]), "exclude"] = "1"
    table.to_csv(tmp_path / "corrected.csv", index=False, sep=";")
    tasks = json.loads(fetched["label_studio.json"].read_text())
    by_file = {task["data"]["file"]: task for task in tasks}
    assert by_file["train/red/=swapped, twice.png"]["data"]["image"].endswith(
        "photos/train/red/%3Dswapped%2C%20twice.png"
    )
    (choice,) = by_file["train/red/=swapped, twice.png"]["predictions"][0]["result"]
    newer = {"updated_at": "2026-01-01T00:00:00Z"}
    by_file["train/red/=swapped, twice.png"]["annotations"].append({"result": [choice], **newer})
    by_file["train/red/blank.png"]["annotations"].append({"result": [], "was_cancelled": True, **newer})
    excluded = {**choice, "from_name": "exclude", "value": {"choices": ["exclude"]}}
    by_file["train/blue/copy.png"]["annotations"].append({"result": [choice, excluded], **newer})
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    capsys.readouterr()
    for name in ("corrected.csv", "export.json"):
        corrected = read(root, tmp_path / name)
        class_of_image = {
            name: corrected.classes[label]
            for split in (corrected.train, corrected.valid, corrected.test)
            for name, label in zip(split.names, split.labels, strict=True)
        }
        assert class_of_image["train/red/=swapped, twice.png"] == "blue" and len(class_of_image) == 136
        assert not {"train/red/blank.png", "train/blue/copy.png"} & class_of_image.keys()
    controls = xml.fromstring(fetched["label_studio.xml"].read_text()).findall("Choices")
    assert {control.get("name"): [choice.get("value") for choice in control] for control in controls} == {
        "label": ["blue", "red"],
        "exclude": ["exclude"],
    }


def test_a_clean_folder_is_called_clean(workplace, tmp_path, capsys):
    assert workplace.run("doctor", **QUICK, data_dir=draw_two_colours(tmp_path / "photos")) == 0
    found, run = tables(workplace, tmp_path)
    assert [len(found[name]) for name in ("duplicates", "suspect_labels", "odd_images")] == [0, 0, 0]
    said = capsys.readouterr().err
    assert "duplicates: none" in said and "odd images: none" in said and "0 of " in said
    assert "nothing wrong" in run.data.tags["mlflow.note.content"]


def test_the_doctor_names_copies_under_two_classes_first_and_the_folder_of_its_tables_last(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos", per_class=12)
    (root / "train/red/copy.png").write_bytes((root / "train/blue/002.png").read_bytes())
    (root / "train/blue/again.png").write_bytes((root / "train/blue/003.png").read_bytes())
    assert workplace.run("doctor", **{**QUICK, "label_epochs": 1}, data_dir=root, valid_fraction=0) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("doctor: ")]
    assert lines[0].startswith(
        "doctor: exact copies under two classes: 1 (contradictions.csv), one label of each is wrong"
    )
    assert "train/blue/002.png is blue, its copy train/red/copy.png is red" in lines[0]
    found, run = tables(workplace, tmp_path)
    assert found["duplicates"][["image", "twin"]].to_numpy().tolist()[0] == ["train/red/copy.png", "train/blue/002.png"]
    before, _, folder = lines[-1].rpartition(", in ")
    assert before == f"doctor: tables and sheets are in run {run.info.run_id}"
    assert {"contradictions.csv", "duplicates.csv", "duplicates.png"} <= {path.name for path in Path(folder).iterdir()}


def test_suspect_labels_that_an_exact_copy_contradicts_are_listed_first(workplace, tmp_path):
    root = draw_two_colours(tmp_path / "photos")
    for number in range(10):
        swapped = (root / f"train/blue/{number:03}.png").rename(root / f"train/red/swapped{number}.png")
        if number % 2:
            (root / f"train/blue/copy{number}.png").write_bytes(swapped.read_bytes())
    assert workplace.run("doctor", **QUICK, data_dir=root, valid_fraction=0) == 0
    suspects = tables(workplace, tmp_path)[0]["suspect_labels"]
    has_copy = suspects["exact_copy_of_another_class"].notna()
    assert has_copy.any() and not has_copy.all()
    assert has_copy.is_monotonic_decreasing
    for pair in suspects.loc[has_copy, ["image", "exact_copy_of_another_class"]].to_numpy():
        number = pair[0][-5]
        assert {*pair} == {f"train/red/swapped{number}.png", f"train/blue/copy{number}.png"}


def test_a_pretrained_network_judges_the_labels_if_its_weights_are_on_this_disk(workplace, weights, tmp_path, capsys):
    root = draw(tmp_path / "photos", {"red": 40, "green": 40})
    (root / "red" / "3.jpg").rename(root / "green" / "swapped.jpg")
    table = [[path.relative_to(root), path.parent.name, "train", path.name[0]] for path in sorted(root.rglob("*.jpg"))]
    table[:8] = [[*row[:2], "test", "t"] for row in table[:8]]
    pd.DataFrame(table, columns=["path", "label", "split", "group"]).to_csv(root / "table.csv", index=False)
    assert workplace.run("doctor", dataset="folder", data_dir=root, labels="table.csv") == 0
    said = capsys.readouterr().err
    assert "4 probes of a pretrained network judged images" in said and "network 1/4" not in said
    (run,) = workplace.runs("doctor")
    fetch = workplace.client.download_artifacts
    suspects, labels = (
        pd.read_csv(fetch(run.info.run_id, name, str(tmp_path))) for name in ("suspect_labels.csv", "labels.csv")
    )
    assert suspects["image"][0] == "green/swapped.jpg" and suspects["suggested"][0] == "red"
    assert run.data.params["image_size"] == "160"
    assert labels["group"].notna().all() and {*labels["split"]} == {"train", "test", "valid"}


def test_a_folder_of_enlarged_files_is_named_with_the_detail_it_holds(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos", per_class=12)
    for path in root.rglob("*.png"):
        Image.open(path).resize((192, 192), Image.Resampling.BICUBIC).save(path)
    assert workplace.run("doctor", **{**QUICK, "label_epochs": 0}, data_dir=root) == 0
    said = capsys.readouterr().err
    assert "upscaled: most files hold some 48 px of detail on their shorter side of 192 px" in said
    assert "nothing wrong" not in said


def test_digits_are_examined_without_image_files_and_label_epochs_0_checks_no_labels(workplace, capsys):
    assert workplace.run("doctor", experiment="none", limit_train=200, limit_test=50, label_epochs=0) == 0
    assert "labels: not checked" in capsys.readouterr().err
    (run,) = workplace.runs("doctor")
    assert "suspect_labels.csv" not in workplace.artifacts(run.info.run_id)


def test_the_doctor_says_that_labels_of_a_tiny_class_are_not_checked(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos", per_class=12)
    (root / "train" / "green").mkdir()
    Image.new("RGB", (48, 48), "green").save(root / "train" / "green" / "alone.png")
    assert workplace.run("doctor", **{**QUICK, "label_epochs": 1}, data_dir=root, valid_fraction=0) == 0
    said = capsys.readouterr().err
    assert "; 1 not checked, because their classes have fewer than 2 images" in said


def test_photos_in_formats_that_are_not_read_are_a_fault(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos", per_class=12)
    (root / "train" / "blue" / "camera.NEF").write_bytes(b"x")
    assert workplace.run("doctor", **{**QUICK, "label_epochs": 0}, data_dir=root) == 0
    said = capsys.readouterr().err
    assert "a class in train; photos left out: 1 .nef (not read: convert them to JPEG)" in said
    assert "nothing wrong" not in said


def test_similar_class_names_and_photos_outside_class_folders_are_faults(workplace, tmp_path, capsys):
    root = draw_two_colours(tmp_path / "photos", per_class=12)
    for name in ("Blue", "red ", "été", unicodedata.normalize("NFD", "été")):
        (root / "train" / name).mkdir()
        Image.new("RGB", (48, 48), "green").save(root / "train" / name / f"{len(name)}.png")
    Image.new("RGB", (48, 48), "green").save(root / "test" / "loose.png")
    assert workplace.run("doctor", **{**QUICK, "label_epochs": 0}, data_dir=root, valid_fraction=0) == 0
    said = capsys.readouterr().err
    assert "class names that differ only by case, blanks or Unicode form: 'Blue' and 'blue'; 'red' and 'red '" in said
    assert "test/ holds 1 photo without class folders: not used" in said
    assert "spelled in several Unicode forms, each taken as one class: été" in said
    assert "nothing wrong" not in said
    (run,) = workplace.runs("doctor")
    assert run.data.metrics["doctor/classes_alike"] == 4


def test_folders_that_may_be_parts_or_classes_are_refused_in_one_line(workplace, tmp_path, capsys):
    for name in ("half_1", "half_2"):
        draw_two_colours(tmp_path / "photos" / name, per_class=2)
    assert workplace.run("doctor", **QUICK, data_dir=tmp_path / "photos") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "half_1/, half_2/ all hold the folders test/, train/" in said


@pytest.mark.parametrize(("name", "value"), [("near_similarity", 2), ("label_folds", 1), ("max_aspect", 0.5)])
def test_a_value_out_of_bounds_is_refused_in_one_line(workplace, capsys, name, value):
    assert workplace.run("doctor", **{name: value}) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{name}={value}" in err
