"""A training that is interrupted, saved to a file and continued ends like an uninterrupted one, to the bit."""

from functools import partial

import pytest
import torch
from torch import nn

from pipeline import models
from pipeline.data import augmentation
from pipeline.data.batches import Batches, TrainBatches
from pipeline.model_files import checkpoint
from pipeline.models import MODELS
from pipeline.models.stages import Frozen
from pipeline.training import optimizers, schedules
from pipeline.training.ema import MovingAverage
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.optimizers import OPTIMIZERS
from pipeline.training.recomputation import recompute
from pipeline.training.training import Diverged, Training
from tests.small import network, plain, squares

CPU = torch.device("cpu")
EPOCHS, UPDATES = 3, 5  # updates of an epoch; the last one has a ragged batch


class Valid:
    def __iter__(self):
        return (plain(images, labels, None, None) for images, labels in Batches(squares(20, seed=9), 7, CPU))


def augmented(images, labels, place, generator, mixup=0.0):
    pixels, _ = plain(augmentation.random_crop(images, 2, generator), labels, place, generator)
    return augmentation.mix(pixels, labels, 4, mixup, mixup) if mixup else (pixels, labels)


def small_model(name):
    torch.manual_seed(0)
    if name == "dropout":
        return nn.Sequential(network(), nn.Dropout(0.5), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    sizes = {"width": 4, "patch_size": 4, "dim": 16, "depth": 2, "heads": 2}
    model = models.build(name, num_classes=4, image_size=8, **sizes)
    if name == "fast":
        model = nn.Sequential(nn.Upsample(scale_factor=2), model)  # `fast` needs 9 px or more
    return model.to(memory_format=torch.channels_last)


def small_training(
    model="resnet9",
    optimizer="sgd",
    ema=False,
    mixup=0.0,
    freeze=0,
    unfreeze_epoch=0,
    lr_decay=1.0,
    is_compiled=False,
    freezes_norms=False,
    recomputes=False,
):
    net = small_model(model)
    if recomputes:
        recompute(net)
    averaged = MovingAverage(net, 0.9) if ema else None
    augment_batch = partial(augmented, mixup=mixup)
    batches = TrainBatches(squares(66), 16, CPU, seed=0, augment=augment_batch)
    stepper = optimizers.build(optimizer, net, lr=0.01, momentum=0.9, weight_decay=5e-4, lr_decay=lr_decay)
    schedule = schedules.one_cycle(
        stepper,
        max_lr=0.02,
        total_steps=EPOCHS * len(batches),
        pct_start=0.3,
        div_factor=25,
        final_div_factor=1e4,
        anneal="cos",
        momentum=0.9,
    )
    return Training(
        net,
        batches,
        stepper,
        schedule,
        ema=averaged,
        epochs=EPOCHS,
        precision="fp32",
        label_smoothing=0.1,
        valid=Valid(),
        frozen=None if freeze == 0 else Frozen(net, freeze, unfreeze_epoch),
        freezes_norms=freezes_norms,
        is_compiled=is_compiled,
    )


def outcome(training):
    """The events of a training without their times, and its best and last weights."""
    epochs = [{k: v for k, v in vars(e).items() if "second" not in k} for e in training.log.epochs]
    return epochs, training.log.steps(), training.weights["best"], training.weights["last"]


def assert_equal(one, other):
    for a, b in zip(outcome(one), outcome(other), strict=True):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)
        elif isinstance(a, list):
            assert a == b
        else:
            assert a.equals(b)


def interrupted(path, at, **recipe):
    """Stops the training after `at` events, saves it to a file, and continues it with another object."""
    left = small_training(**recipe)
    for _, _event in zip(range(at), left.events(), strict=False):
        pass
    checkpoint.save_tree(path, left.state_dict(), {})
    torch.manual_seed(12345)  # as another process has another random state
    training = small_training(**recipe)
    training.load_state_dict(checkpoint.load_tree(path)[0])
    events = list(training.events())
    assert len(events) == EPOCHS * (UPDATES + 1) - at
    return training


def whole(**recipe):
    training = small_training(**recipe)
    list(training.events())
    return training


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", [*MODELS, "dropout"])
def test_every_model_and_optimizer_continues_to_the_bit(tmp_path, model, optimizer):
    recipe = {"model": model, "optimizer": optimizer}
    assert_equal(interrupted(tmp_path / "state", UPDATES + 1 + 3, **recipe), whole(**recipe))


@pytest.mark.parametrize(
    "recipe",
    [
        {"ema": True},
        {"mixup": 0.4},
        {"ema": True, "mixup": 1.0, "model": "dropout"},
        {"ema": True, "freeze": 2, "unfreeze_epoch": 2, "lr_decay": 0.5},
    ],
)
@pytest.mark.parametrize("at", [1, UPDATES, UPDATES + 1, 2 * UPDATES + 1, 3 * (UPDATES + 1)])
def test_a_training_continues_to_the_bit_from_any_place_of_an_epoch(tmp_path, recipe, at):
    assert_equal(interrupted(tmp_path / "state", at, **recipe), whole(**recipe))


def test_mixup_and_dropout_really_change_the_training():
    assert not outcome(whole(mixup=1.0))[1].equals(outcome(whole())[1])
    assert not outcome(whole(model="dropout"))[1].equals(outcome(whole(model="resnet9"))[1])


def test_the_best_epoch_is_the_first_of_highest_accuracy_and_lowest_loss():
    training = small_training()
    weights = []
    for event in training.events():
        if isinstance(event, EpochEnd):
            weights.append((event, training.weights["last"]))
    best = min((event for event, _ in weights), key=lambda e: (-e.valid_accuracy, e.valid_loss))
    assert training.log.best is best
    assert training.weights["best"] is {event.epoch: kept for event, kept in weights}[best.epoch]


def test_a_state_of_another_network_is_refused(tmp_path):
    left = small_training(model="resnet9")
    next(left.events())
    with pytest.raises(ValueError, match="not of this training"):
        small_training(model="ultimus").load_state_dict(left.state_dict())


def test_a_training_whose_loss_is_no_number_gives_no_state():
    training = small_training()
    events = training.events()
    next(events)
    event = training.log.open_steps[0]
    training.log.open_steps[0] = StepEnd(**{**vars(event), "loss": torch.tensor(float("nan"))})
    with pytest.raises(Diverged, match="at step 0"):
        training.state_dict()
