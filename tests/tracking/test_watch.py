"""The maps after an epoch show the network of that epoch, do not change it, and survive an interruption."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.explain import attribution
from pipeline.history import trained_model
from pipeline.model_files import checkpoint
from pipeline.models import cam_target
from pipeline.params import TrainedModelParams
from pipeline.results import plots
from pipeline.tracking.run import Run
from tests.conftest import Workplace

TRAIN = {"experiment": "none", "limit_train": 200, "limit_test": 40, "batch_size": 32, "width": 4, "epochs": 3}
TRAIN |= {"max_lr": 0.02, "optimizer": "sgd", "ema_decay": 0.8, "mixup": 0.2}


def digests(workplace, run_id):
    """(digests of the best and the last weights, steps.csv) of a training."""
    folder = workplace.folder
    fetch = workplace.client.download_artifacts
    weights = [
        checkpoint.digest(Path(fetch(run_id, f"weights/{kind}.safetensors", folder))) for kind in ("best", "last")
    ]
    return weights, Path(fetch(run_id, "steps.csv", folder)).read_text()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A workplace in which the same training has run twice; the newer run was watched."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    assert place.run("train", **TRAIN) == 0
    assert place.run("train", **TRAIN, watch_images=3) == 0
    return place


@pytest.fixture(scope="module")
def watched(workplace):
    return workplace.runs("train")[0].info.run_id


def fetched(workplace, run_id):
    return Path(workplace.client.download_artifacts(run_id, "watch", str(workplace.folder)))


def maps(folder):
    return {path.name: np.load(path) for path in sorted((folder / "maps").iterdir())}


def test_watching_changes_no_bit_of_the_training(workplace):
    newer, older = (run.info.run_id for run in workplace.runs("train"))
    assert digests(workplace, newer) == digests(workplace, older)
    assert "watch" not in {item.path for item in workplace.client.list_artifacts(older)}


def test_the_maps_of_the_last_epoch_show_the_stored_network(workplace, watched, monkeypatch):
    folder = fetched(workplace, watched)
    index, images = json.loads((folder / "index.json").read_text()), np.load(folder / "images.npy")
    assert images.shape == (3, 3, index["side"], index["side"]) == (3, 3, 32, 32)
    assert [*maps(folder)] == ["0001.npy", "0002.npy", "0003.npy"]
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", workplace.environment["XDG_CACHE_HOME"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workplace.uri)
    found = trained_model.find(TrainedModelParams(run_id=watched, checkpoint="last"))
    valid, classifier = found.splits.valid, found.classifier
    rows = [list(valid.names).index(image["name"]) for image in index["images"]]
    assert [found.splits.classes[valid.labels[row]] for row in rows] == [image["class"] for image in index["images"]]
    assert np.array_equal(valid.take(np.array(rows)), images)
    expected = attribution.class_maps(
        classifier.model,
        cam_target("resnet18", classifier.model),
        classifier.normalise(torch.from_numpy(images)),
        torch.from_numpy(valid.labels[rows]),
        "gradcam",
    )
    assert np.abs(255 * expected - maps(folder)["0003.npy"]).max() <= 1


def test_the_animation_has_a_frame_for_each_epoch(workplace, watched):
    with Image.open(fetched(workplace, watched) / "watch.gif") as played:
        assert played.n_frames == 3


def test_the_slider_has_each_map_at_the_place_that_its_table_names(workplace, watched):
    folder = fetched(workplace, watched)
    table = pd.read_csv(folder / "maps.csv")
    assert table[["epoch", "image"]].to_numpy().tolist() == [[e, i] for e in (1, 2, 3) for i in range(3)]
    kept = [np.load(folder / "maps" / f"{row.epoch:04}.npy")[row.image] for row in table.itertuples()]
    assert table["blank"].tolist() == [not each.any() for each in kept]
    with Image.open(folder / "maps.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGBA"))
    for row, expected in zip(table.itertuples(), plots.heat(np.stack(kept)), strict=True):
        there = pixels[row.top : row.top + row.side, row.left : row.left + row.side, 3]
        assert np.abs(there.astype(int) - expected[3]).mean() < 8  # of 255; only the opacity differs between maps
    images = pd.read_csv(folder / "images.csv")
    named = json.loads((folder / "index.json").read_text())["images"]
    assert images[["name", "class"]].astype(str).to_dict("records") == named


@pytest.mark.parametrize(
    ("given", "method"),
    [({}, "gradcam"), ({"model": "vit", "dim": 12, "depth": 1, "heads": 1, "patch_size": 8}, "attention_relevance")],
)
def test_the_method_of_the_maps_suits_the_network(tmp_path, given, method):
    place = Workplace(tmp_path)
    assert place.run("train", **{**TRAIN, "epochs": 1, **given}, watch_images=2) == 0
    folder = fetched(place, place.runs("train")[0].info.run_id)
    assert json.loads((folder / "index.json").read_text())["method"] == method
    assert maps(folder)["0001.npy"].any()


@pytest.mark.slow
def test_a_resumed_training_keeps_the_maps_it_had(workplace, watched, monkeypatch):
    def stop(self, event, beside=None, record=Run.record):
        record(self, event, beside)
        if event.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", stop)
        assert workplace.run("train", **TRAIN, watch_images=3) == 130
    assert workplace.run("train", resume="latest") == 0
    newest = workplace.runs("train")[0].info.run_id
    assert newest != watched
    before, after = (fetched(workplace, run_id) for run_id in (watched, newest))
    assert digests(workplace, newest) == digests(workplace, watched)
    assert maps(before).keys() == maps(after).keys()
    assert all(np.array_equal(each, maps(after)[name]) for name, each in maps(before).items())
    with Image.open(after / "watch.gif") as played:
        assert played.n_frames == 3


def test_without_a_validation_split_there_is_nothing_to_watch(workplace, capsys):
    assert workplace.run("train", **{**TRAIN, "valid_fraction": 0}, watch_images=3) == 2
    assert "watch_images=3: there is no validation split" in capsys.readouterr().err


def test_a_watched_training_that_diverges_names_the_step(workplace, capsys):
    # With one update per epoch and no normalisation layers, the logits are not finite after the first epoch.
    diverging = {"model": "squeezenet1_1", "batch_size": 180, "max_lr": 1000, "div_factor": 1}
    diverging |= {"optimizer": "adamw", "ema_decay": 0, "mixup": 0}
    assert workplace.run("train", **{**TRAIN, **diverging}, watch_images=3) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "no maps of epoch 1: the model's logits are not finite" in lines
    assert lines[-1].startswith("error: the loss became nan at step 1 with lr")
