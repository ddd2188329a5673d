"""Updates use one device and never wait for it: seen on a pretend device, because there may be no GPU here."""

import pytest
import torch

from benchmarks.synthetic import splits
from pipeline.params import TrainParams
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.recipe import Recipe
from tests.pretend_device import pretend_device

BATCH, UPDATES = 16, 6
SMALL = {"width": 4, "dim": 12, "depth": 1, "heads": 3, "batch_size": BATCH, "epochs": 2}


def test_the_pretend_device_sees_mixed_devices_copies_and_waits():
    with pretend_device() as seen:
        there, here = torch.ones(3, device="pretend"), torch.ones(3)
        assert (there * 2 + torch.tensor(1.0)).device.type == "pretend" and not any(seen.values())
        here.to("pretend")
        there[here.long()]
        assert len(seen["copy"]) == 2
        float(there.sum())
        there.cpu()
        there[there > 0]
        assert len(seen["wait"]) == 3
        assert not seen["mixed"]
        there + here
        assert len(seen["mixed"]) == 1


@pytest.mark.parametrize(
    "recipe",
    [
        {"model": "resnet18", "optimizer": "sgd", "cutout": 4, "label_smoothing": 0.1, "class_weights": "balanced"},
        {"model": "fast", "optimizer": "muon", "ema_decay": 0.9, "flip": "alternate", "first_size": 24},
        {"model": "resnet9", "optimizer": "adamw", "crop_area": 0.5, "mixup": 0.2, "cutmix": 1.0},
    ],
    ids=lambda recipe: recipe["model"],
)
def test_no_update_mixes_devices_or_waits(recipe):
    params = TrainParams(**SMALL, **recipe)
    with pretend_device() as seen:
        training = Recipe(params, splits(UPDATES * BATCH), torch.device("pretend"), "fp32").one_cycle(0.01)
        seen["copy"].clear(), seen["wait"].clear()
        updates = 0
        for event in training.events():
            if isinstance(event, StepEnd) and event.step % UPDATES:  # not the first of an epoch
                updates += 1
                assert seen["wait"] == []
                # The images of the batch and their positions; nothing else goes to the device.
                assert {each.partition(" ")[2] for each in seen["copy"]} <= {"uint8 (16, 3, 32, 32)", "int64 (16,)"}
                assert len(seen["copy"]) <= 3
            if isinstance(event, EpochEnd):
                assert seen["wait"]
            seen["copy"].clear(), seen["wait"].clear()
    assert updates == 2 * (UPDATES - 1)
    assert seen["mixed"] == []
