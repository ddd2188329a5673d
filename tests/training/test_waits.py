"""Updates use one device and never wait for it: seen on a pretend device, because there may be no GPU here.

This file is also the program that trains there, `python -m tests.training.test_waits`: torch counts its devices at its
first backward pass, so the pretend device must be known before.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch.utils._pytree import tree_flatten

from benchmarks.synthetic import splits
from pipeline.model_files import host_copies
from pipeline.params import TrainParams
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.recipe import Recipe
from tests.conftest import PROJECT
from tests.pretend_device import pretend_device

BATCH, UPDATES, EPOCHS = 16, 6, 2
SMALL = {"width": 4, "dim": 12, "depth": 1, "heads": 3, "batch_size": BATCH, "epochs": EPOCHS}
RECIPES = [
    {"model": "resnet18", "optimizer": "sgd", "cutout": 4, "label_smoothing": 0.1, "class_weights": "balanced"},
    {"model": "fast", "optimizer": "muon", "ema_decay": 0.9, "flip": "alternate", "first_size": 24},
    {"model": "resnet9", "optimizer": "adamw", "crop_area": 0.5, "mixup": 0.2, "clip_grad_norm": 1.0, "accumulate": 2},
]


def watched(recipe):
    """The records of a training: of each update except the first of an epoch, and of the ends of epochs."""
    updates, ends = [], []
    with pretend_device() as seen:
        params = TrainParams(**SMALL, **recipe)
        training = Recipe(params, splits(UPDATES * BATCH), torch.device("pretend"), "fp32").one_cycle(0.01)
        for event in training.events():
            found = {kind: list(seen[kind]) for kind in ("copy", "wait")}
            if isinstance(event, EpochEnd):
                ends.append(found)
            elif isinstance(event, StepEnd) and event.step % UPDATES:
                updates.append(found)
            seen["copy"].clear(), seen["wait"].clear()
        return {"mixed": list(seen["mixed"]), "updates": updates, "ends": ends}


def saved(depth):
    """(the number of tensors, the waits for them) of the state of a vision transformer under a moving average."""
    with pretend_device() as seen:
        params = TrainParams(**{**SMALL, "depth": depth}, model="vit", ema_decay=0.9)
        training = Recipe(params, splits(UPDATES * BATCH), torch.device("pretend"), "fp32").one_cycle(0.01)
        next(training.events())
        state = training.state_dict()
        seen["wait"].clear()
        host_copies.snapshot(state)
        return len(tree_flatten(state)[0]), seen["wait"]


def packed():
    """Whether the copies equal their tensors, also in memory format, if they need several packs."""
    kernel = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    tensors = [kernel, torch.tensor(3), torch.randn(0), torch.randn(5, 7).T, torch.randn(60), torch.tensor([1, 2])]
    with pretend_device(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_copies, "PACKED_BYTES", 220)  # room for the first kernel alone, and less than the vector
        copies = host_copies.on_cpu([tensor.to("pretend") for tensor in tensors])
    equal = [torch.equal(one, other) for one, other in zip(copies, tensors, strict=True)]
    return all(equal) and copies[0].stride() == kernel.stride()


def faults():
    """The numbers of records of faults that are there on purpose."""
    with pretend_device() as seen:
        there, here = torch.ones(3, device="pretend"), torch.ones(3)
        there * 2 + torch.tensor(1.0)
        none = sum(map(len, seen.values()))
        here.to("pretend")
        there[here.long()]
        float(there.sum())
        there.cpu()
        there[there > 0]
        there + here
        return {"none": none, **{kind: len(records) for kind, records in seen.items()}}


@pytest.fixture(scope="module")
def found():
    """The results of this file as a program."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_waits"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_pretend_device_sees_mixed_devices_copies_and_waits(found):
    assert found["faults"] == {"none": 0, "mixed": 1, "copy": 2, "wait": 3}


@pytest.mark.parametrize("number", range(len(RECIPES)), ids=lambda number: RECIPES[number]["model"])
def test_no_update_mixes_devices_or_waits(found, number):
    training = found["trainings"][number]
    assert training["mixed"] == []
    assert len(training["updates"]) == EPOCHS * (UPDATES - 1)
    for update in training["updates"]:
        assert update["wait"] == []
        # The images of the batch and their positions; nothing else goes to the device.
        assert {each.partition(" ")[2] for each in update["copy"]} <= {"uint8 (16, 3, 32, 32)", "int64 (16,)"}
        assert len(update["copy"]) <= 3
    assert all(end["wait"] for end in training["ends"])


def test_a_saved_state_waits_once_for_each_type_of_number_whatever_the_number_of_tensors(found):
    (few, waits), (many, others) = found["saved"]
    assert many > few + 50
    assert len(others) == len(waits) <= 2  # fp32 and int64
    assert found["packed"]


if __name__ == "__main__":
    trainings = [watched(recipe) for recipe in RECIPES]
    results = {"faults": faults(), "trainings": trainings, "saved": [saved(1), saved(3)], "packed": packed()}
    sys.stdout.write(json.dumps(results) + "\n")
