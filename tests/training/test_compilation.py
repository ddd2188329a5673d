"""A compiled training equals an uncompiled one, except for the last digits, and leaves an ordinary network."""

import shutil
import tempfile

import pytest
import torch
from torch import nn

from pipeline.training import compilation
from tests.conftest import Workplace
from tests.training.test_state import interrupted, small_training, whole

TINY = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "epochs": 1, "max_lr": 0.01}

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler on this machine"
)


@pytest.fixture(scope="module")
def folder():
    # Not the folder of other tests: that may lie in memory, from where the system may not load code.
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.fixture(autouse=True)
def compiled_here(folder, monkeypatch):
    """Compiled code goes to a folder of this module, and torch forgets earlier compiled code."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", folder)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compilation._why_not.cache_clear()
    yield
    torch.compiler.reset()


def losses(training):
    return torch.tensor(training.log.steps()["loss"].to_numpy())


def differences(one, other):
    return max(
        (one.weights["last"][name].float() - tensor.float()).abs().max().item()
        for name, tensor in other.weights["last"].items()
    )


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    "recipe",
    [
        {"model": "dropout", "ema": True, "mixup": 0.4},
        pytest.param({"model": "resnet9", "freeze": 2, "unfreeze_epoch": 2}, marks=pytest.mark.slow),
        pytest.param({"model": "vit", "optimizer": "adamw"}, marks=pytest.mark.slow),
    ],
    ids=lambda recipe: recipe["model"],
)
def test_compiled_training_has_the_losses_and_weights_of_an_eager_one_even_after_an_interruption(tmp_path, recipe):
    plain, compiled = whole(**recipe), whole(**recipe, is_compiled=True)
    assert torch.allclose(losses(compiled), losses(plain), atol=1e-3)
    assert compiled.weights["last"].keys() == plain.weights["last"].keys()
    assert differences(compiled, plain) < 1e-2
    again = interrupted(tmp_path / "state", 9, **recipe, is_compiled=True)
    assert torch.allclose(losses(again), losses(compiled), atol=1e-6)


@pytest.mark.slow
@needs_compiler
def test_compiled_blocks_that_are_computed_again_see_each_batch_once():
    compiled, recomputed = (whole(model="resnet9", is_compiled=True, recomputes=each) for each in (False, True))
    assert torch.allclose(losses(recomputed), losses(compiled), atol=1e-6)
    assert differences(recomputed, compiled) < 1e-4  # also of the statistics and counts of batch norms


@pytest.mark.slow
@needs_compiler
def test_whole_batches_are_trained_by_one_compiled_graph():
    training = small_training(model="dropout", is_compiled=True)
    list(training.events())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # the ragged last batch needs no other graph


@needs_compiler
@pytest.mark.slow
def test_networks_of_many_shapes_are_all_compiled():
    for width in range(1, 11):
        with torch.no_grad():
            compilation.compiled(nn.Linear(2, width))(torch.ones(2, 2))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 10


@needs_compiler
@pytest.mark.slow
def test_compile_on_compiles_a_training_and_its_network_can_be_explained(tmp_path):
    place = Workplace(tmp_path)
    steps = {"steps": "train,evaluate,explain", "model": "ultimus", "num_images": 2}
    assert place.run("main", **TINY, **steps, compile="on") == 0
    # One graph is of the check whether torch can compile, and one of the network.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert place.runs("explain")[0].data.metrics["explain/blank_maps"] == 0


@pytest.mark.slow
def test_compile_on_without_a_compiler_is_refused_in_one_line_and_makes_no_run(tmp_path):
    place = Workplace(tmp_path)
    place.environment |= {"PATH": "/nowhere", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled")}
    process = place.start("train", **TINY, model="ultimus", compile="on")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert err.splitlines()[-1].startswith("error: compile=on: torch cannot compile on this machine (")
    assert place.runs() == []


@pytest.mark.parametrize(
    ("asked", "device", "num_updates", "why_not", "expected"),
    [
        ("off", "cuda", compilation.LONG, "", False),
        ("auto", "cuda", compilation.LONG, "", True),
        ("auto", "cuda", compilation.LONG, "no compiler", False),
        ("auto", "cuda", compilation.LONG - 1, "", False),
        ("auto", "cpu", compilation.LONG, "", False),
        ("on", "cpu", 1, "", True),
    ],
)
def test_auto_compiles_only_long_trainings_on_cuda(monkeypatch, asked, device, num_updates, why_not, expected):
    monkeypatch.setattr(compilation, "_why_not", lambda device: why_not)
    assert compilation.choose(asked, torch.device(device), num_updates) is expected
