"""Fine-tuning from an earlier run, from a file, and with frozen stages."""

import pickle
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pipeline import models
from pipeline.history import trained_model
from pipeline.history.initial_weights import network_of, prepare
from pipeline.model_files import checkpoint, stored_calibration
from pipeline.params import TrainedModelParams, TrainParams
from pipeline.settings import resolve
from pipeline.training.events import EpochEnd
from pipeline.training.recipe import load_splits
from tests.conftest import Workplace
from tests.planted.ground import Payload

TINY = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "width": 4, "model": "resnet9"}
TRAIN = {**TINY, "epochs": 2, "max_lr": 0.01}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def source(place):
    """(id of a finished training, its weights file)."""
    assert place.run("train", **TRAIN) == 0
    run_id = place.runs("train")[0].info.run_id
    return run_id, weights_file(place, run_id)


def weights_file(place, run_id, epoch="best"):
    folder = place.folder / "downloads" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    return Path(place.client.download_artifacts(run_id, f"weights/{epoch}.safetensors", str(folder)))


@pytest.fixture
def kept(source, tmp_path):
    """A copy of the weights that a test may change."""
    return Path(shutil.copy(source[1], tmp_path / "kept.safetensors"))


def test_a_training_starts_from_the_weights_of_a_run_and_frozen_stages_do_not_change(place, source, capsys):
    run_id, path = source
    assert place.run("train", **TRAIN, weights=f"run:{run_id}", freeze="backbone", seed=1) == 0
    err = capsys.readouterr().err
    assert f"starting from weights=run:{run_id}: its head is kept" in err
    assert "frozen: stem, layer1, layer2, layer3 (" in err
    tuned = place.runs("train")[0]
    (before, was), (after, now) = checkpoint.load(path), checkpoint.load(weights_file(place, tuned.info.run_id, "last"))
    learned = stored_calibration.split(before)[0]  # the other tensors of the file are the calibration
    assert {name.split(".")[0] for name in learned if not torch.equal(before[name], after[name])} == {"head"}
    assert (now["mean"], now["std"]) == (was["mean"], was["std"])

    assert tuned.data.tags["weights"] == f"run:{run_id}"


def test_a_head_alone_trains_on_stored_features_with_the_losses_of_a_training_on_images(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    start = {"weights": str(kept), "freeze": "backbone", "crop_padding": 0, "precision": "fp32"}
    shapes, losses = [], []
    for more in ({}, {"watch_images": 1}):  # maps need images
        training = prepare(TrainParams(**{**TRAIN, **start, **more})).one_cycle(0.01)
        shapes.append(next(training.batches.epoch(1))[0].shape)
        losses.append([event.valid_loss for event in training.events() if isinstance(event, EpochEnd)])
    assert shapes == [(32, 32), (32, 3, 32, 32)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len([*tmp_path.rglob("features/*.npy")]) == 2


@pytest.mark.parametrize("named", ["run:{id}", " RUN:{start}", "{file}"])
def test_parameters_of_the_network_that_are_not_given_come_from_the_weights(place, source, capsys, named):
    run_id, file = source
    weights = named.format(id=run_id, start=run_id[:8], file=file)
    data = {name: TRAIN[name] for name in ("limit_train", "limit_test", "batch_size", "max_lr")}
    assert place.run("train", **data, epochs=1, weights=weights) == 0
    said = capsys.readouterr().err
    assert f"model=resnet9, image_size=32: as weights={weights} are" in said
    assert "its head is kept" in said
    params = place.runs("train")[0].data.params
    assert (params["model"], params["width"], params["experiment"]) == ("resnet9", "4", "none")


def test_given_parameters_of_the_network_win_over_those_of_the_weights(place, source, tmp_path):
    run_id, _ = source
    file = tmp_path / "e.yaml"
    file.write_text(f"model: resnet9\nwidth: 8\nweights: run:{run_id}\n")

    def found(**flags):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", place.uri)
            return resolve("train", flags, network_of=network_of)

    assert (found(experiment=str(file)).width, found(experiment=str(file), width="4").width) == (8, 4)
    assert found(weights=f"run:{run_id}", image_size="16").image_size == 16
    assert found(weights=f"run:{run_id}", model="resnet18").width == 16  # of digits.yaml: they are another network's
    with pytest.raises(ValueError, match="no such run"):
        found(weights="run:0123456789abcdef")


def test_only_the_network_and_its_image_size_are_taken_from_a_weights_file(kept):
    state, described = checkpoint.load(kept)
    options = {"width": 4, "seed": 7, "limit_train": 3}
    checkpoint.save(kept, state, {**described, "network": {"name": "resnet9", "options": options}})
    assert network_of({"weights": str(kept)}) == {"model": "resnet9", "width": 4, "image_size": 32}
    kept.write_bytes(b"nothing")
    assert network_of({"weights": str(kept)}) == network_of({"weights": "default"}) == {}


def test_validation_images_that_the_weights_have_learned_from_are_counted(place, source, capsys):
    run_id, _ = source
    assert place.run("train", **TRAIN, weights=f"run:{run_id}") == 0
    assert "has learned from" not in capsys.readouterr().err
    assert place.run("train", **TRAIN, weights=f"run:{run_id}", valid_fraction=0.3) == 0
    found = re.search(r"has learned from (\d+) of (\d+) validation images, by their", capsys.readouterr().err)
    divided = {}
    for training in (source[0], place.runs("train")[0].info.run_id):
        path = place.client.download_artifacts(training, "splits.csv", str(place.folder / "downloads" / training))
        table = pd.read_csv(path)
        divided[training] = {split: {*rows["index"]} for split, rows in table.groupby("split")}
    before, now = divided.values()
    assert found and [int(number) for number in found.groups()] == [
        len(before["train"] & now["valid"]),
        len(now["valid"]),
    ]


def test_images_are_normalised_as_the_weights_need_it_in_training_and_later(place, kept, capsys):
    state, described = checkpoint.load(kept)
    theirs = {"mean": [0.1, 0.2, 0.3], "interpolation": "bilinear", "image_size": 24, "classes": ["a", "b"] * 5}
    checkpoint.save(kept, state, {**described, **theirs})
    assert place.run("train", **TRAIN, image_size=32, weights=kept, freeze=2, unfreeze_epoch=2, lr_decay=0.5) == 0
    err = capsys.readouterr().err
    assert "its head, of 10 other classes, is replaced by a fresh one" in err
    assert "normalised by these weights' mean 0.1 0.2 0.3" in err
    assert "images scaled as these weights need it: bilinear" in err
    assert "image_size=32 differs from the 24 px these weights were made for" in err
    run = place.runs("train")[0]
    now = checkpoint.describe(weights_file(place, run.info.run_id))
    assert (now["mean"], now["interpolation"]) == ([0.1, 0.2, 0.3], "bilinear")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", place.uri)
        later = trained_model.find(TrainedModelParams(run_id=run.info.run_id))
    assert later.splits.mean == (0.1, 0.2, 0.3)
    bilinear, bicubic = (load_splits(later.params, interpolation=each) for each in ("bilinear", "bicubic"))
    assert later.splits.test.digest() == bilinear.test.digest() != bicubic.test.digest()


def test_a_quiet_training_still_warns_of_images_that_are_too_small_for_the_weights_file(place, kept, capsys):
    assert place.run("train", "--quiet", **{**TRAIN, "epochs": 1}, weights=kept, image_size=16) == 0
    warning, result = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: image_size=16: these weights were made for 32 px")
    assert warning.endswith("; give image_size=32")
    assert result.startswith("training: ")


def test_a_range_test_applies_to_the_same_weights_only(place, source, capsys, tmp_path):
    recipe = {**TINY, "weights": source[1], "freeze": "backbone"}
    assert place.run("lr_range", **recipe, lr_rule="steepest", ladder_steps=20, num_repeats=1) == 0
    assert "frozen: stem" in capsys.readouterr().err
    (test,) = place.runs("lr_range")
    elsewhere = shutil.copy(source[1], tmp_path / "elsewhere.safetensors")
    for change, is_same in (({"weights": elsewhere}, True), ({"lr_decay": 0.5}, False), ({"freeze": 2}, False)):
        recipe_here = prepare(TrainParams(**{**recipe, **change, "weights": str(change.get("weights", source[1]))}))
        assert (recipe_here.fingerprint() == test.data.tags["recipe"]) == is_same


def test_a_training_says_if_its_rate_was_measured_with_frozen_stages(place, source, capsys):
    recipe = {**TINY, "weights": source[1], "freeze": 2, "unfreeze_epoch": 2}
    assert place.run("train", **recipe, epochs=2) == 0
    assert "measured with freeze=2; from epoch 2 on, the other layers learn at it too" in capsys.readouterr().err


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """(folder with a torchvision network's bare tensors, as safetensors and from `torch.save`; the network)."""
    model = models.build("squeezenet1_1", num_classes=1000, image_size=32)
    folder = tmp_path_factory.mktemp("bare")
    save_file(model.state_dict(), folder / "w.safetensors")
    torch.save(model.state_dict(), folder / "w.pth")
    return folder, model


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_bare_tensors_with_torchvisions_names_are_enough(bare, name, capsys):
    folder, model = bare
    ours = prepare(TrainParams(**{**TINY, "model": "squeezenet1_1", "weights": str(folder / name)})).model(seed=0)
    said = capsys.readouterr().err
    assert "its head of 1000 classes is replaced by a fresh one of 10" in said
    assert "warning: normalised by this set's mean 0." in said and "these weights do not say what they need" in said
    assert said.rstrip().endswith("need mean=0.485,0.456,0.406 std=0.229,0.224,0.225")
    theirs = model.state_dict()
    differing = {name for name, tensor in ours.state_dict().items() if not tensor.equal(theirs[name])}
    assert differing == {"classifier.1.weight", "classifier.1.bias"}


def test_a_given_mean_and_std_count_more_than_those_of_the_weights_and_of_the_images(bare, kept, capsys):
    given = {"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
    network = {**TINY, "model": "squeezenet1_1", "weights": str(bare[0] / "w.safetensors")}
    recipe = prepare(TrainParams(**network, **given))
    assert (recipe.splits.mean, recipe.splits.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    said = capsys.readouterr().err
    assert "normalised by the given mean 0.485 0.456 0.406 and the given std 0.229 0.224 0.225" in said
    assert "warning" not in said
    assert recipe.fingerprint() != prepare(TrainParams(**network)).fingerprint()
    described = checkpoint.describe(kept)
    other = prepare(TrainParams(**TINY, weights=str(kept), mean=given["mean"])).splits
    assert (other.mean, list(other.std)) == ((0.485, 0.456, 0.406), described["std"])


def test_bare_tensors_with_timms_names_are_recognised(tmp_path):
    file = tmp_path / "test_efficientnet.r160_in1k.safetensors"
    save_file(models.build("timm/test_efficientnet", num_classes=1000, image_size=32).state_dict(), file)
    message = r"not weights of this network .*; its tensors have timm's names: give model=timm/test_efficientnet$"
    with pytest.raises(ValueError, match=message):
        prepare(TrainParams(**TINY, weights=str(file)))


def planted(folder, marker):
    """(name of a file that holds no weights, the message about it) for each kind of such a file."""
    hostile = pickle.dumps(Payload(marker))
    (folder / "pickle.safetensors").write_bytes(hostile)
    yield "pickle.safetensors", "not a safetensors file"
    (folder / "pickle.pth").write_bytes(hostile)
    yield "pickle.pth", "holds more than tensors"
    torch.save({"stem.0.weight": Payload(marker)}, folder / "saved.pth")
    yield "saved.pth", "holds more than tensors"
    torch.save([1, 2], folder / "list.pth")
    yield "list.pth", "is not a state_dict"
    yield "nowhere.safetensors", "No such file"


def test_files_without_weights_are_refused_and_no_code_in_them_runs(tmp_path):
    for name, message in planted(tmp_path, tmp_path / "executed"):
        with pytest.raises(ValueError, match=message) as error:
            prepare(TrainParams(**TINY, weights=str(tmp_path / name)))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(ValueError, match=f"^weights={Path.cwd()}/gone.safetensors: No such file"):
        prepare(TrainParams(**TINY, weights="gone.safetensors"))


def test_weights_of_another_network_are_refused(kept):
    def refusal(**changes):
        with pytest.raises(ValueError) as error:
            prepare(TrainParams(**{**TINY, "weights": str(kept), **changes}))
        return str(error.value)

    assert "the weights are for model=resnet9, not for model=resnet18" in refusal(model="resnet18")
    assert "tensors differ" in refusal(width=8)
    assert "freeze=9: the network has 4 stages before its head" in refusal(freeze=9)
    state, described = checkpoint.load(kept)
    checkpoint.save(kept, state, {**described, "std": [0, 0, 0]})
    assert "its description cannot be used" in refusal()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weights": "default"}, "torchvision has no weights for resnet9, which is this project's own"),
        ({"model": "resnet50", "weights": "IMAGENET1K_V7"}, "torchvision has none of that name for resnet50"),
        ({"model": "alexnet"}, "image_size=32 does not fit alexnet: the next that fits is 63"),
        ({"model": "resnet5O"}, "did you mean resnet50?"),
        ({"weights": f"run:{'0' * 32}"}, f"run_id={'0' * 32}: no such run"),
    ],
)
def test_a_mistake_in_weights_or_network_is_one_line_and_leaves_no_run(place, source, capsys, params, message):
    capsys.readouterr()
    before = len(place.runs())
    assert place.run("train", **{**TRAIN, **params}) == 2
    assert len(place.runs()) == before
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert message in line


def test_a_fine_tuning_is_resumed_only_with_the_same_weights_file(place, kept, capsys):
    assert place.run("train", **TRAIN, image_size=32, weights=kept, freeze=2, keep_checkpoints=True) == 0
    run_id = place.runs("train")[0].info.run_id
    place.client.set_terminated(run_id, "KILLED")
    state, described = checkpoint.load(kept)
    checkpoint.save(kept, {name: tensor * 2 for name, tensor in state.items()}, described)
    capsys.readouterr()
    assert place.run("train", resume=run_id) == 2
    assert f"resume={run_id}: weights is sha256" in capsys.readouterr().err
