"""Planted weights and planted states of an interrupted training are refused in one line, and no code in them runs."""

import contextlib

import pytest
import torch

from pipeline.model_files import checkpoint
from tests.planted.ground import Payload


def weights_file(ground, trained):
    return ground.artifacts(trained) / "weights" / "best.safetensors"


@pytest.mark.parametrize("step", ["evaluate", "explain"])
def test_weights_that_are_a_pickle_are_refused(ground, trained, plant, capsys, step):
    plant(weights_file(ground, trained), ground.pickle)
    assert "not weights of this pipeline" in ground.refused(capsys, step, run_id=trained)


def test_weights_in_a_pickle_of_torch_are_refused(ground, trained, plant, capsys, tmp_path):
    torch.save({"weight": Payload(ground.marker)}, tmp_path / "w.pt")
    plant(weights_file(ground, trained), (tmp_path / "w.pt").read_bytes())
    assert "not weights of this pipeline" in ground.refused(capsys, "evaluate", run_id=trained)


def vit_description(**sizes):
    """The description of a ViT with these options."""
    return {"network": {"name": "vit", "options": {"patch_size": 4, "dim": 24, "depth": 1, "heads": 2, **sizes}}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": {"name": "resnet18", "options": {"width": 10**9}}}, "width should be less than or equal to 1024"),
        ({"network": {"name": "resnet18", "options": {"width": 1024}}}, "other tensors"),  # 2.9 GB
        ({"image_size": 10**9}, "image_size should be less than or equal to 1024"),
        (vit_description(depth=100, dim=8192), "other tensors"),  # 320 GB
        (vit_description(depth=10**9), "depth should be less than"),
        ({"network": {"name": "vgg19", "options": {}}}, "other tensors"),  # 0.6 GB
        ({"network": {"name": "regnet_y_128gf", "options": {}}}, "other tensors"),  # 2.6 GB
        ({"network": {"name": "vit_h_14", "options": {}}}, "image_size=32: vit_h_14 cannot be built"),
        ({"network": {"name": "resnet50; rm", "options": {}}}, "did you mean resnet50?"),
        ({"classes": [str(number) for number in range(10**6)]}, "other tensors"),
        ({"classes": "abc"}, "classes"),
        ({"classes": []}, "classes"),
        ({"network": {"name": "../../x", "options": {}}}, "network.name"),
        ({"network": {"name": "resnet18", "options": {"width": "wide"}}}, "network.options.width"),
        ({"network": {"name": "resnet18", "options": {"depht": 3}}}, "depht"),
        ({"network": None}, "network"),
        ({"image_size": None}, "image_size"),
        ({"mean": [0.5]}, "mean"),
        ({"std": [0, 0, 0]}, "std"),
        ({"std": [float("nan")] * 3}, "std"),
    ],
)
def test_weights_whose_description_is_impossible_are_refused_before_memory_is_taken(
    ground, trained, plant, capsys, tmp_path, change, reason
):
    path = weights_file(ground, trained)
    state, described = checkpoint.load(path)
    checkpoint.save(tmp_path / "w", state, {**described, **change})
    plant(path, (tmp_path / "w").read_bytes())
    with limited_tensors(10**8):
        assert reason in ground.refused(capsys, "evaluate", run_id=trained)


@contextlib.contextmanager
def limited_tensors(num_bytes):
    """Inside this context, no larger tensor can be created: a file must be refused before it takes memory."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.device.type != "meta":
                assert made.nbytes < num_bytes
            return made

    with Watch():
        yield


@pytest.mark.parametrize("missing", ["network", "image_size", "classes", "mean", "std"])
def test_weights_whose_description_lacks_a_field_are_refused(ground, trained, plant, capsys, tmp_path, missing):
    path = weights_file(ground, trained)
    state, described = checkpoint.load(path)
    del described[missing]
    checkpoint.save(tmp_path / "w", state, described)
    plant(path, (tmp_path / "w").read_bytes())
    assert f"{missing} Field required" in ground.refused(capsys, "evaluate", run_id=trained)


def test_weights_of_other_classes_or_of_another_number_type_are_refused(ground, trained, plant, capsys, tmp_path):
    path = weights_file(ground, trained)
    state, described = checkpoint.load(path)
    checkpoint.save(tmp_path / "w", {name: tensor.double() for name, tensor in state.items()}, described)
    plant(path, (tmp_path / "w").read_bytes())
    assert "other tensors" in ground.refused(capsys, "evaluate", run_id=trained)
    checkpoint.save(tmp_path / "w", state, {**described, "classes": list("zyxwvutsrq")})
    plant(path, (tmp_path / "w").read_bytes())
    assert "the classes or image size of its weights" in ground.refused(capsys, "evaluate", run_id=trained)


def tree_of(slots):
    return next(checkpoint.load_tree(path)[0] for path in slots if path.exists())


def test_states_that_are_pickles_are_refused(ground, trained, interrupted, plant, capsys):
    for path in interrupted:
        plant(path, ground.pickle)
    assert "has saved no state" in ground.refused(capsys, "train", resume=trained)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: {**tree, "schedule": {**tree["schedule"], "step": 1}},
        lambda tree: {**tree, "schedule": 3},
        lambda tree: {**tree, "model": "../../x"},
        lambda tree: {**tree, "optimizer": {"state": {}, "param_groups": []}},
        lambda tree: {**tree, "history": {"epochs": [{"epoch": 1}], "steps": {}}},
        lambda tree: {**tree, "history": None},
        lambda tree: {**tree, "best": "../../x", "last": "../../x"},
        lambda tree: {},
    ],
)
def test_states_of_something_else_are_refused(ground, trained, interrupted, plant, capsys, tmp_path, change):
    checkpoint.save_tree(tmp_path / "state", change(tree_of(interrupted)), {"step": 10**6})
    for path in interrupted:
        plant(path, (tmp_path / "state").read_bytes())
    assert "the kept state is not of this training" in ground.refused(capsys, "train", resume=trained)
