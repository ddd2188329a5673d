"""What a recipe is made into: a range test's ladders, or a training ready to run."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pipeline import data
from pipeline.data import augment
from pipeline.data.batches import Batches
from pipeline.params import LrRangeParams, TrainParams
from pipeline.training import compiling, range_test, schedules
from pipeline.training.averaging import MovingAverage
from pipeline.training.fitting import Fitting
from pipeline.training.range_test import Curve
from pipeline.training.schedules import peak_momentum
from pipeline.training.setup import Setup, SizeAfter

# Train images of 32 px, and fewer of larger ones, from which on one ladder does, so that its time is little beside a
# training's.
LARGE_SET = 10_000


class Normalised:
    """Batches of a split as a model takes them, in order and without augmentation."""

    def __init__(self, splits: data.Splits, split: data.Split, batch_size: int, device: torch.device) -> None:
        self._batches = Batches(split, batch_size, device)
        self._splits = splits

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, 3, H, W) float32, labels (B,) int64."""
        for images, labels in self._batches:
            yield augment.normalise(images, self._splits.mean, self._splits.std), labels


def fitting(setup: Setup, params: TrainParams, max_lr: float) -> Fitting:
    """The OneCycle training that `params` declare, with peak rate `max_lr`."""
    model, batches = setup.model(params.seed), setup.train_batches(params.seed, _size_after(params))
    averaged = MovingAverage(model, params.ema_decay) if params.ema_decay else None
    num_updates = params.epochs * len(batches)
    optimizer = setup.optimizer(model, max_lr, params.momentum)
    schedule = schedules.one_cycle(
        optimizer,
        max_lr=max_lr,
        total_steps=num_updates,
        pct_start=params.pct_start,
        div_factor=params.div_factor,
        final_div_factor=params.final_div_factor,
        anneal=params.anneal,
        momentum=params.momentum,
    )
    valid = setup.splits.valid
    return Fitting(
        model,
        batches,
        optimizer,
        schedule,
        averaged,
        epochs=params.epochs,
        precision=setup.precision,
        label_smoothing=params.label_smoothing,
        class_weights=setup.class_weights(),
        frozen=setup.frozen(model, params.unfreeze_epoch),
        is_compiled=compiling.choose(params.compile, setup.device, num_updates),
        valid=None if valid is None else Normalised(setup.splits, valid, params.batch_size, setup.device),
    )


def _size_after(params: TrainParams) -> SizeAfter | None:
    if not params.first_size:
        return None
    turn = params.first_share * params.epochs
    return lambda passes: params.first_size if passes < turn else params.image_size


def num_ladders(setup: Setup, params: LrRangeParams) -> int:
    """How many ladders a range test of `params` climbs."""
    if params.num_repeats != "auto":
        return params.num_repeats
    return 1 if len(setup.splits.train) * params.image_size**2 > LARGE_SET * 32**2 else 3


def climb(
    setup: Setup, params: LrRangeParams, repeat: int, look: Callable[[float, float], None] | None = None
) -> Curve:
    """Ladder number `repeat` of a range test, with weights, order and augmentation of its own.

    look: is told the rate and the loss of each update.
    """
    seed = params.seed + repeat
    return range_test.climb(
        setup.model(seed),
        lambda model: setup.optimizer(model, params.lr_min, peak_momentum(params.momentum)),
        setup.train_batches(seed),
        lr_min=params.lr_min,
        lr_max=params.lr_max,
        num_steps=params.num_steps,
        precision=setup.precision,
        label_smoothing=params.label_smoothing,
        class_weights=setup.class_weights(),
        freeze=setup.frozen,
        look=look,
    )
