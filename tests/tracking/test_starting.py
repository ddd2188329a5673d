"""Fine-tuning as a user does it: from an earlier run, from a file, with a part frozen."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline import models
from pipeline.tracking import checkpoint
from tests.conftest import Workplace

TINY = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "epochs": 2, "width": 4}
TRAIN = {**TINY, "model": "resnet9", "max_lr": 0.01}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def source(place):
    """The run of a training, and its weights file."""
    assert place.run("train", **TRAIN) == 0
    run_id = place.runs("train")[0].info.run_id
    return run_id, weights(place, run_id)


def weights(place, run_id, epoch="best"):
    return Path(place.client.download_artifacts(run_id, f"weights/{epoch}.safetensors", str(place.folder)))


@pytest.fixture
def kept(source, tmp_path):
    """A copy of the weights that a test may change."""
    return Path(shutil.copy(source[1], tmp_path / "kept.safetensors"))


def refused(place, capsys, **params):
    """The one line in which a training is refused, before there is a run."""
    capsys.readouterr()
    before = len(place.runs())
    assert place.run("train", **{**TRAIN, **params}) == 2
    assert len(place.runs()) == before
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def test_a_run_s_weights_are_gone_on_with_and_what_is_frozen_stays(place, source, capsys):
    run_id, path = source
    assert place.run("train", **TRAIN, weights=f"run:{run_id}", freeze="backbone", seed=1) == 0
    told = capsys.readouterr().err
    assert f"starting from weights=run:{run_id}: its head is kept" in told
    assert "frozen: stem, layer1, layer2, layer3 (" in told
    tuned = place.runs("train")[0]
    (before, was), (after, now) = checkpoint.load(path), checkpoint.load(weights(place, tuned.info.run_id, "last"))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"head"}
    assert (now["mean"], now["std"]) == (was["mean"], was["std"])
    assert tuned.data.tags["weights"] == f"run:{run_id}"
    assert place.run("evaluate", run_id=tuned.info.run_id) == 0


def test_images_are_normalised_as_the_weights_need_it_then_and_later(place, kept, capsys):
    state, described = checkpoint.load(kept)
    checkpoint.save(kept, state, {**described, "mean": [0.1, 0.2, 0.3], "image_size": 24, "classes": ["a", "b"] * 5})
    assert place.run("train", **TRAIN, weights=kept, freeze=2, unfreeze_epoch=2, lr_decay=0.5) == 0
    told = capsys.readouterr().err
    assert "its head, of 10 other classes, is replaced by a fresh one" in told
    assert "normalised as these weights need it: mean 0.1 0.2 0.3" in told
    assert "image_size=32 differs from the 24 px these weights were made for" in told
    run = place.runs("train")[0]
    assert checkpoint.describe(weights(place, run.info.run_id))["mean"] == [0.1, 0.2, 0.3]
    assert run.data.tags["weights"].startswith("sha256 ")
    assert place.run("evaluate", run_id=run.info.run_id) == 0
    measured = place.runs("evaluate")[0].data.metrics["test/loss"]
    assert place.run("explain", run_id=run.info.run_id, num_images=2) == 0
    assert measured < 5


def test_the_range_test_is_of_the_weights_the_rate_is_for(place, source, capsys):
    recipe = {**TINY, "model": "resnet9", "num_steps": 40, "num_repeats": 1, "weights": source[1], "freeze": "backbone"}
    assert place.run("lr_range", **recipe) == 0
    (test,) = place.runs("lr_range")
    told = capsys.readouterr().err
    assert "frozen: stem" in told
    copied = shutil.copy(source[1], place.folder / "elsewhere.safetensors")
    assert place.run("lr_range", **{**recipe, "weights": copied}) == 0
    same, _ = place.runs("lr_range")
    assert same.data.tags["recipe"] == test.data.tags["recipe"]
    assert place.run("lr_range", **{**recipe, "lr_decay": 0.5}) == 0
    assert place.runs("lr_range")[0].data.tags["recipe"] != test.data.tags["recipe"]


def test_tensors_of_torchvision_s_names_alone_will_do(place, tmp_path, capsys):
    model = models.build("squeezenet1_1", num_classes=1000, image_size=32)
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    for name in ("bare.safetensors", "w.pth"):
        tuned = {"model": "squeezenet1_1", "freeze": "backbone", "epochs": 1, "weights": tmp_path / name}
        assert place.run("train", **{**TRAIN, **tuned}) == 0
        assert "its head of 1000 classes is replaced by a fresh one of 10" in capsys.readouterr().err
        state, _ = checkpoint.load(weights(place, place.runs("train")[0].info.run_id))
        assert torch.equal(state["features.0.weight"], model.state_dict()["features.0.weight"])


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_files_that_are_no_weights_are_refused_and_nothing_in_them_is_done(place, kept, tmp_path, capsys):
    marker = tmp_path / "executed"
    (tmp_path / "p.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    assert "no safetensors file" in refused(place, capsys, weights=tmp_path / "p.safetensors")
    torch.save({"stem.0.weight": Payload(marker)}, tmp_path / "p.pth")
    assert "holds more than tensors" in refused(place, capsys, weights=tmp_path / "p.pth")
    (tmp_path / "q.pth").write_bytes(pickle.dumps(Payload(marker)))
    assert "holds more than tensors" in refused(place, capsys, weights=tmp_path / "q.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "no mapping of names to tensors" in refused(place, capsys, weights=tmp_path / "list.pth")
    assert not marker.exists()
    assert "No such file" in refused(place, capsys, weights=tmp_path / "none.safetensors")
    assert "are weights of model=resnet9" in refused(place, capsys, weights=kept, model="resnet18")
    assert "tensors differ" in refused(place, capsys, weights=kept, width=8)
    state, described = checkpoint.load(kept)
    checkpoint.save(kept, state, {**described, "std": [0, 0, 0]})
    assert "its description cannot be used" in refused(place, capsys, weights=kept)
    assert "has no artifact" in refused(place, capsys, weights=f"run:{'0' * 32}")


def test_what_does_not_fit_together_is_refused_before_there_is_a_run(place, source, capsys):
    line = refused(place, capsys, weights="default")
    assert "weights=default: torchvision has none for resnet9, which is this project's own" in line
    assert "torchvision has none of that name" in refused(place, capsys, model="resnet50", weights="IMAGENET1K_V7")
    assert "the network has 4 stages" in refused(place, capsys, weights=source[1], freeze=9)
    assert "is none that alexnet takes: the next is 63" in refused(place, capsys, model="alexnet")
    assert "did you mean resnet50?" in refused(place, capsys, model="resnet5O")


def test_a_fine_tuning_goes_on_with_the_same_weights_alone(place, kept, capsys):
    tuned = {**TRAIN, "weights": kept, "freeze": 2, "keep_checkpoints": "true"}
    assert place.run("train", **tuned) == 0
    run_id = place.runs("train")[0].info.run_id
    place.client.set_terminated(run_id, "KILLED")
    assert place.run("train", resume=run_id) == 0
    place.client.set_terminated(run_id, "KILLED")
    state, described = checkpoint.load(kept)
    checkpoint.save(kept, {name: tensor * 2 for name, tensor in state.items()}, described)
    capsys.readouterr()
    assert place.run("train", resume=run_id) == 2
    assert f"resume={run_id}: weights is sha256" in capsys.readouterr().err
    place.client.set_terminated(run_id, "FINISHED")
