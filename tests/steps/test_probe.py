"""A folder of photos without other settings: a probe, fine-tuning from its head, and a test of the better one."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pipeline import models
from pipeline.models import stages
from pipeline.training import photo_defaults, probe
from pipeline.training.probe import Probe
from tests.report.reader import Page
from tests.steps.conftest import BACKBONE

QUICK = {"epochs": 2, "image_size": 64, "num_images": 2}


def draw(folder, per_class, side=96):
    """Photos of noise in `folder`, with a tint for each class: `per_class` has the number of photos by class."""
    random = np.random.default_rng(0)
    for name, count in per_class.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 90, (side, side + i % 9, 3), dtype=np.uint8)
            pixels[..., list(per_class).index(name) % 3] += 140
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")
    return folder


def test_a_folder_is_probed_and_fine_tuned_and_later_steps_take_the_better_network(
    workplace, weights, tmp_path, capsys
):
    photos = draw(tmp_path / "photos", {"red": 60, "green": 60, "blue": 15})
    assert workplace.run("main", dataset="folder", data_dir=photos, **QUICK) == 0
    said = capsys.readouterr().err
    assert f"model={BACKBONE}, weights=default" in said
    assert "class_weights=balanced: " in said
    (probe,), (training,) = workplace.runs("probe"), workplace.runs("train")
    assert training.data.params["weights"] == f"run:{probe.info.run_id}"
    evaluations = workplace.runs("evaluate")
    assert {each.data.tags["train.run_id"] for each in evaluations} == {probe.info.run_id, training.info.run_id}
    assert "comparison: the " in said and " on 27 test images" in said
    chosen = workplace.runs("explain")[0].data.tags["train.run_id"]
    reached = {run.info.run_id: run.data.metrics["weights/best_valid_accuracy"] for run in (probe, training)}
    assert reached[chosen] == max(reached.values())
    main = workplace.runs("main")[0]
    assert main.data.tags["better.run_id"] == chosen
    for better in (probe, training):  # `latest` takes the network that the tag names
        workplace.client.set_tag(main.info.run_id, "better.run_id", better.info.run_id)
        assert workplace.run("predict", images=photos / "red" / "0.jpg", num_shown=0) == 0
        assert workplace.runs("predict")[0].data.tags["train.run_id"] == better.info.run_id
    used = workplace.client.get_run(main.data.tags["evaluate.run_id"]).data
    assert used.tags["train.run_id"] == chosen and -1 <= used.metrics["beside/difference"] <= 1
    (other,) = {each.info.run_id for each in evaluations} - {main.data.tags["evaluate.run_id"]}
    assert used.tags["beside.run_id"] == other
    file = workplace.client.download_artifacts(main.info.run_id, "report.html", str(tmp_path))
    page = Page(Path(file).read_text(encoding="utf-8"))
    assert f"{'probe' if chosen == probe.info.run_id else 'trained network'} is what is served" in page.text
    assert f"Paired test: {used.tags['beside.verdict']}." in page.text
    shown = {(source, float(value)) for source, value, _ in page.numbers}
    assert ("evaluate/test/accuracy", used.metrics["test/accuracy"]) in shown
    assert ("evaluate_beside/test/accuracy", workplace.client.get_run(other).data.metrics["test/accuracy"]) in shown
    assert main.data.params["model"] == BACKBONE
    assert main.data.params["batch_size"] == "13"  # batches of 12 would leave one of 97 images


def test_a_probe_is_a_training_to_all_other_steps(workplace, weights, tmp_path, capsys):
    photos = draw(tmp_path / "photos", {"red": 30, "green": 30})
    assert workplace.run("probe", dataset="folder", data_dir=photos, image_size=64) == 0
    probe = workplace.runs("probe")[0]
    assert {"valid/accuracy", "train/loss", "weights/best_valid_accuracy"} <= probe.data.metrics.keys()
    for step, more in (("evaluate", {}), ("explain", {"num_images": 2}), ("export", {"format": "torch_export"})):
        assert workplace.run(step, **more) == 0, step
    assert workplace.runs("evaluate")[0].data.metrics["test/accuracy"] > 0.9
    capsys.readouterr()
    assert workplace.run("predict", photos / "red/0.jpg") == 0
    assert "red" in capsys.readouterr().out
    (output,) = probe.outputs.model_outputs
    mlflow.set_tracking_uri(workplace.uri)
    try:
        served = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
        assert len(served.predict(np.zeros((2, 3, 64, 64), dtype=np.uint8))) == 2
        assert (
            f"timm=={timm.__version__}"
            in Path(mlflow.pyfunc.get_model_dependencies(f"models:/{output.model_id}")).read_text()
        )
    finally:
        mlflow.set_tracking_uri(None)


def test_features_are_computed_once_and_again_when_they_are_damaged(workplace, weights, tmp_path, monkeypatch):
    # No other test has these photos, so their features are not in the cache.
    photos = draw(tmp_path / "photos", {"red": 31, "green": 29})
    command = {"dataset": "folder", "data_dir": photos, "image_size": 64}
    cache = workplace.folder / "cache"
    before = {*cache.rglob("features/*.npy")}
    assert workplace.run("probe", **command) == 0
    files = sorted({*cache.rglob("features/*.npy")} - before)
    assert len(files) == 2  # train and validation
    written = {file: file.stat().st_mtime_ns for file in files}
    assert workplace.run("probe", **command) == 0
    assert written == {file: file.stat().st_mtime_ns for file in files}
    files[0].write_bytes(b"no array")
    assert workplace.run("probe", **command) == 0
    assert np.load(files[0]).dtype == np.float32
    losses = [run.data.metrics["train/loss"] for run in workplace.runs("probe")[:3]]
    assert len(set(losses)) == 1


def test_the_source_and_the_licence_of_the_weights_are_in_every_run_that_starts_from_them(workplace, weights, tmp_path):
    photos = draw(tmp_path / "photos", {"red": 30, "green": 30})
    start = {"dataset": "folder", "data_dir": photos, "image_size": 64, "model": BACKBONE, "weights": "default"}
    start |= {"experiment": "none", "batch_size": 16}
    short = {"lr_rule": "steepest", "ladder_steps": 20, "num_repeats": 1}
    space = '{"label_smoothing": [0.1]}'
    assert workplace.run("lr_range", **start, **short) == 0
    assert workplace.run("probe", **start) == 0
    assert workplace.run("sweep", **start, space=space, num_trials=1, epochs=1, max_lr=0.01, study_name="s") == 0
    probe = workplace.runs("probe")[0].info.run_id
    # The training takes network and size from the run.
    assert workplace.run("train", dataset="folder", data_dir=photos, weights=f"run:{probe[:8]}", epochs=1) == 0
    origin = "file test_efficientnet.safetensors, as https://huggingface.co/timm/test_efficientnet.r160_in1k"
    origins = dict.fromkeys(("lr_range", "probe", "sweep", "trial"), origin)
    for step, source in {**origins, "train": f"run {probe}, which started from {origin}"}.items():
        tags = workplace.runs(step)[0].data.tags
        assert (tags["weights.source"], tags["weights.licence"]) == (source, "apache-2.0"), step
    training = workplace.runs("train")[0].info.run_id
    assert workplace.run("report", run_id=training) == 0
    page = Path(workplace.client.download_artifacts(training, "report.html", str(tmp_path))).read_text()
    assert f"<p>run {probe}, which started from {origin}; licence: apache-2.0</p>" in page


@pytest.mark.parametrize("per_class", [{"a": 5, "b": 5}, {"a": 12, "b": 3}])
def test_very_few_photos_are_enough_for_a_probe_and_its_evaluation(workplace, weights, tmp_path, per_class):
    photos = draw(tmp_path / "photos", per_class)
    assert workplace.run("main", dataset="folder", data_dir=photos, **QUICK, steps="probe,evaluate") == 0
    probe = workplace.runs("probe")[0].data.metrics
    assert probe["cv/accuracy_low"] < probe["cv/accuracy"]
    metrics = workplace.runs("evaluate")[0].data.metrics
    assert metrics["test/accuracy_low"] < metrics["test/accuracy"] or metrics["test/accuracy"] == 0


def test_main_without_weights_says_where_to_put_them_and_trains_from_nothing(workplace, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    photos = draw(tmp_path / "photos", {"red": 40, "green": 40})
    monkeypatch.setitem(photo_defaults.FROM_NOTHING, "width", 4)
    assert workplace.run("main", dataset="folder", data_dir=photos, epochs=1, steps="train", max_lr=0.01) == 0
    said = capsys.readouterr().err
    assert "no pretrained weights: " in said and "put model.safetensors of timm/tf_efficientnet_lite0" in said
    assert "Training from nothing at 64 px instead" in said
    params = workplace.runs("train")[0].data.params
    assert (params["weights"], params["image_size"]) == ("none", "64")


@pytest.mark.slow
@pytest.mark.parametrize("given", [{"weights": "none"}, {"model": "resnet18", "max_lr": 0.01}])
def test_a_network_that_starts_from_nothing_gets_no_recipe_of_a_pretrained_one(workplace, weights, tmp_path, given):
    photos = draw(tmp_path / "photos", {"red": 40, "green": 40})
    command = {"dataset": "folder", "data_dir": photos, "epochs": 1, "width": 4, "num_images": 2}
    probes = len(workplace.runs("probe"))
    assert workplace.run("main", **command, **given) in (0, 1)  # a range test so short may have no suggestion
    main = workplace.runs("main")[0]
    assert (main.data.params["weights"], main.data.params["image_size"]) == ("none", "64")
    assert len(workplace.runs("probe")) == probes


def test_the_measured_rate_is_used_only_with_its_optimizer_and_is_printed(tmp_path):
    photos = draw(tmp_path / "photos", {"red": 4, "green": 4})
    network = {"data_dir": str(photos), "model": "torchvision/resnet18", "weights": "default"}
    values, lines = photo_defaults.choose(network)
    assert values["max_lr"] == 1e-3
    assert any(line.startswith("max_lr=0.001: ") for line in lines)
    assert "max_lr" not in photo_defaults.choose({**network, "optimizer": "sgd"})[0]
    assert "max_lr" not in photo_defaults.choose({**network, "max_lr": 0.1})[0]


def test_the_image_size_in_the_message_is_the_one_used(tmp_path):
    photos = {"data_dir": str(draw(tmp_path / "photos", {"red": 4, "green": 4}))}
    assert photo_defaults.choose({**photos, "weights": "none", "image_size": 96})[1][0].endswith("at 96 px instead")
    values, lines = photo_defaults.choose({**photos, "model": "vit"})
    assert values["image_size"] == 64
    assert lines[0] == "image_size=64: most photos have less than 128 px on their shorter side"


@pytest.mark.parametrize(
    ("model", "weights", "size"),
    [
        ("timm/test_efficientnet", "default", 160),
        ("timm/vit_base_patch16_224", "augreg_in21k", 224),
        ("convnext_tiny", "default", 224),
        ("efficientnet_b1", "IMAGENET1K_V2", 240),
        ("convnext_tiny", "NONE_OF_THAT_NAME", None),
        ("timm/test_efficientnet", "own.safetensors", None),
        ("vit", "default", None),  # our own, which has no published weights
    ],
)
def test_photos_get_the_image_size_of_published_weights(tmp_path, model, weights, size):
    given = {"data_dir": draw(tmp_path / "photos", {"a": 20, "b": 20}), "model": model, "weights": weights}
    values, lines = photo_defaults.choose(given)
    assert values.get("image_size") == size
    assert (f"image_size={size}: as in the weights' own training" in lines) == (size is not None)
    assert "image_size" not in photo_defaults.choose({**given, "image_size": 96})[0]


def test_the_size_of_photos_is_found_below_a_folder_with_a_backslash_in_its_name(tmp_path):
    root = draw(tmp_path / "photos", {"N\\A": 4, "C:\\users": 4}, side=200)
    assert photo_defaults.choose({"data_dir": str(root), "weights": "none"})[0]["image_size"] == 128


def test_a_probe_alone_prints_only_the_settings_that_it_uses(workplace, weights, tmp_path, capsys):
    photos = draw(tmp_path / "photos", {"red": 40, "green": 8})
    assert workplace.run("probe", dataset="folder", data_dir=photos, image_size=64) == 0
    said = capsys.readouterr().err
    assert f"model={BACKBONE}, weights=default: pretrained" in said  # no other image_size than the given one
    assert not any(f"{name}=" in said for name in ("batch_size", "epochs", "class_weights"))


def test_a_probe_whose_weights_cannot_be_fetched_is_refused_in_one_line(workplace, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    photos = draw(tmp_path / "photos", {"red": 4, "green": 4})
    assert workplace.run("probe", dataset="folder", data_dir=photos) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: weights=default: http://127.0.0.1:9 does not answer") and said.count("\n") == 1
    assert workplace.run("probe", dataset="folder", data_dir=photos, weights="none") == 2
    assert capsys.readouterr().err.startswith("error: weights=none: a probe needs pretrained weights")


def test_a_probe_of_a_network_without_weights_is_refused(workplace, capsys):
    assert workplace.run("probe", experiment="none", limit_train=60, limit_test=20) == 2
    assert "weights=none: a probe needs pretrained weights" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["resnet9", "resnet18", BACKBONE])
def test_a_network_gives_the_logits_of_the_probe_that_is_its_head(name):
    torch.manual_seed(0)
    model = models.build(name, num_classes=3, image_size=64, **({} if "/" in name else {"width": 4})).eval()
    last = stages.head(model)[1]
    fitted = Probe(np.random.default_rng(0).normal(size=last.weight.shape).astype(np.float32), np.ones(3), 1.0, "")
    probe.put(model, fitted)
    seen = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        logits = model(torch.randn(2, 3, 64, 64))
    assert logits.numpy() == pytest.approx(seen[0].numpy() @ fitted.weight.T + fitted.bias, rel=1e-4, abs=1e-4)


def test_a_head_without_a_bias_is_no_probe():
    with pytest.raises(
        ValueError, match="needs a linear head with a bias, and the head of this network is ScaledLinear"
    ):
        probe.check(models.build("fast", num_classes=3, image_size=32))


def test_cross_validation_never_splits_a_group():
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    labels = np.arange(30)[groups] % 2
    marks = draw.normal(size=(30, 200)).astype(np.float32)[groups]  # the same for all images of a group
    assert (probe.fit(marks, labels, None, None, 2).out_of_fold.argmax(1) == labels).mean() > 0.9
    fitted = probe.fit(marks, labels, None, None, 2, groups)
    assert (fitted.out_of_fold.argmax(1) == labels).mean() < 0.75
    two = probe.fit(marks, labels, None, None, 2, labels)  # a class is one group, and no fit can be without it
    assert two.out_of_fold is None and "such as one group of images" in two.chosen_by


def test_cross_validation_predicts_each_image_by_a_fit_without_it():
    labels = np.repeat([0, 1], 30)
    noise = np.random.default_rng(0).normal(size=(60, 200)).astype(np.float32)  # a fit can learn it by heart
    fitted = probe.fit(noise, labels, None, None, 2)
    assert "5-fold" in fitted.chosen_by
    assert ((noise @ fitted.weight.T + fitted.bias).argmax(1) == labels).mean() > 0.9
    assert (fitted.out_of_fold.argmax(1) == labels).mean() < 0.75
