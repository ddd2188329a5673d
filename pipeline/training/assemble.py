"""Parameters -> a range test or a training ready to run: one recipe, which both share."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline import data, models
from pipeline.data import augment, policies
from pipeline.data.batches import Batches, Place, TrainBatches, derive_seed
from pipeline.models import weights
from pipeline.models.weights import Fitted, Pretrained
from pipeline.params import DataParams, LrRangeParams, ModelParams, RecipeParams, TrainParams
from pipeline.training import class_weights, device, optimizers, range_test, schedules
from pipeline.training.fitting import Fitting
from pipeline.training.freezing import Frozen
from pipeline.training.range_test import Curve
from pipeline.training.schedules import peak_momentum

SizeAfter = Callable[[float], int]

UNTOLD = "bicubic"  # interpolation where no weights, or none that tell it, are started from
LARGE_SET = 10_000  # train images from which on one ladder does, so that it costs little beside a training
SAMPLE = 5000  # train images, for weights that follow from them


@dataclass(frozen=True)
class Setup:
    """A recipe on this machine: parameters, loaded splits, device, number format, and what it starts from."""

    params: RecipeParams
    splits: data.Splits
    device: torch.device
    precision: str
    pretrained: Pretrained | None = None

    @property
    def interpolation(self) -> str:
        """By which the images of `splits` were scaled."""
        return _interpolation(self.pretrained)

    def model(self, seed: int) -> nn.Module:
        """A fresh network, its weights a function of `seed` where no others are given."""
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "weights"))
            model = build_model(self.params, len(self.splits.classes))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.params.norm_momentum
        if self.pretrained is not None:
            model.load_state_dict(self._fitted(self.pretrained, model).state)
        elif models.needs_images(self.params.model):
            models.fit_to_images(self.params.model, model, self._sample())
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def optimizer(self, model: nn.Module, lr: float, momentum: float) -> Optimizer:
        """The recipe's optimizer of `model`."""
        return optimizers.build(
            self.params.optimizer,
            model,
            lr=lr,
            momentum=momentum,
            weight_decay=self.params.weight_decay,
            bias_lr=self.params.bias_lr,
            normalise_weights=self.params.normalise_weights == "on",
            lr_decay=self.params.lr_decay,
        )

    def frozen(self, model: nn.Module, until_epoch: int = 0) -> Frozen | None:
        """What of `model` does not learn, until an epoch or ever (0); None where all of it learns."""
        freeze = self.params.freeze
        if freeze == "none":
            return None
        return Frozen(model, None if freeze == "backbone" else freeze, until_epoch)

    def train_batches(self, seed: int, size_after: SizeAfter | None = None) -> TrainBatches:
        """Shuffled, augmented, normalised batches of the train split.

        size_after: passes over the data -> side of the images (px), where that is not always image_size.
        """

        def augmented(images: Tensor, labels: Tensor, place: Place, draw: Generator) -> tuple[Tensor, Tensor]:
            images, labels = self._augment(images, labels, place, draw)
            size = images.shape[-1] if size_after is None else size_after(place.passes)
            return (images if size == images.shape[-1] else augment.resize(images, size)), labels

        train = self.splits.train.with_margin()
        return TrainBatches(train, self.params.batch_size, self.device, seed=seed, augment=augmented)

    def class_weights(self) -> Tensor | None:
        """How much each class counts in the loss of training, (C,); None where all count the same."""
        if self.params.class_weights == "none":
            return None
        train, num_classes = self.splits.train, len(self.splits.classes)
        return torch.from_numpy(class_weights.of(train.labels, num_classes, self.params.class_weights)).to(self.device)

    def recipe(self) -> dict[str, Any]:
        """All a suggested rate depends on, by name: the knobs, the number format, the images, the weights."""
        start = "none" if self.pretrained is None else self.pretrained.identity
        return {**self.params.recipe(), "weights": start, "precision": self.precision, "data": self.splits.digest}

    def told(self) -> list[str]:
        """What a person should know of the weights it starts from, and of what is frozen, in a line each.

        Raises ValueError where weights, network and parameters do not fit together; takes no memory for that.
        """
        params, start = self.params, self.pretrained
        models.check_size(params.model, params.image_size, (len(self.splits.train) - 1) % params.batch_size + 1)
        if start is None:
            return []
        outline = model_outline(params, len(self.splits.classes))
        lines = [f"starting from {start.source}: {self._fitted(start, outline).head}"]
        if start.mean is not None:
            lines.append(f"normalised as these weights need it: mean {_numbers(start.mean)}, std {_numbers(start.std)}")
        if start.interpolation is not None:
            lines.append(f"images scaled as these weights need it: {start.interpolation}")
        if start.image_size not in (None, params.image_size):
            made = f"{start.image_size} px"
            lines.append(f"image_size={params.image_size} differs from the {made} these weights were made for")
        if (frozen := self.frozen(outline, 0)) is not None:
            lines.append(_shown(frozen, outline))
        return lines

    def _fitted(self, start: Pretrained, model: nn.Module) -> Fitted:
        return weights.fitted(model, start, self.splits.classes)

    def _sample(self) -> Tensor:
        """Normalised train images from all over the split, (N, 3, H, W)."""
        train = self.splits.train
        rows = np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(np.int64)
        return augment.normalise(torch.from_numpy(train.take(rows)), self.splits.mean, self.splits.std)

    def _augment(self, images: Tensor, labels: Tensor, place: Place, generator: Generator) -> tuple[Tensor, Tensor]:
        params = self.params
        if params.crop_area:
            images = augment.random_resized_crop(images, params.image_size, params.crop_area, generator)
        elif params.crop_padding:
            images = augment.random_crop(images, params.crop_padding, generator)
        if params.flip == "alternate":
            images = augment.flip(images, place.mirrored)
        elif params.flip == "on" or (params.flip == "auto" and self.splits.flip):
            images = augment.random_flip(images, generator)
        if params.augment != "basic":
            images = policies.apply(params.augment, images)
        pixels = augment.normalise(images, self.splits.mean, self.splits.std)
        if params.cutout:
            pixels = augment.cutout(pixels, params.cutout, generator)
        if params.mixup or params.cutmix:
            return augment.mix(pixels, labels, len(self.splits.classes), params.mixup, params.cutmix)
        return pixels, labels


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
    averaged = None
    if params.ema_decay:
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay), use_buffers=True)
    optimizer = setup.optimizer(model, max_lr, params.momentum)
    schedule = schedules.one_cycle(
        optimizer,
        max_lr=max_lr,
        total_steps=params.epochs * len(batches),
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
    return 1 if len(setup.splits.train) > LARGE_SET else 3


def climb(setup: Setup, params: LrRangeParams, repeat: int) -> Curve:
    """Ladder number `repeat` of a range test, with weights, order and augmentation of its own."""
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
    )


def prepare(params: RecipeParams, pretrained: Pretrained | None = None) -> Setup:
    """Loads the data and settles device and precision. Raises ValueError for what does not fit together.

    pretrained: the weights that `params` name. Where it is known how they need their images scaled, and by which
    mean and std normalised, images are.
    """
    assert (pretrained is None) == (params.weights == "none")
    where = device.choose(params.device)
    splits = load_splits(params, interpolation=_interpolation(pretrained))
    if len(splits.train) < params.batch_size:
        raise ValueError(f"batch_size={params.batch_size} is more than the {len(splits.train)} train images")
    if pretrained is not None and pretrained.mean is not None and pretrained.std is not None:
        splits = replace(splits, mean=pretrained.mean, std=pretrained.std)
    return Setup(params, splits, where, device.choose_precision(params.precision, where), pretrained)


def _interpolation(start: Pretrained | None) -> str:
    return UNTOLD if start is None or start.interpolation is None else start.interpolation


def load_splits(params: DataParams, data_dir: str = "", interpolation: str = UNTOLD) -> data.Splits:
    """The splits that `params` declare, read from `data_dir` where that is given, scaled by `interpolation`."""
    return data.load(
        params.dataset,
        data_dir=data_dir or params.data_dir,
        image_size=params.image_size,
        valid_fraction=params.valid_fraction,
        limit_train=params.limit_train,
        limit_test=params.limit_test,
        labels=params.labels,
        resize=params.resize,
        interpolation=interpolation,
        margin=params.margin,
    )


def build_model(params: RecipeParams, num_classes: int) -> nn.Module:
    """The network that `params` declare, with fresh weights from the global random state."""
    return models.build(params.model, num_classes=num_classes, image_size=params.image_size, **model_options(params))


def model_outline(params: RecipeParams, num_classes: int) -> nn.Module:
    """The same, with no memory for its weights."""
    return models.outline(params.model, num_classes=num_classes, image_size=params.image_size, **model_options(params))


def model_options(params: RecipeParams) -> dict[str, int]:
    """The sizes that a network may take: width, patch_size, dim, depth, heads."""
    return {name: getattr(params, name) for name in ModelParams.model_fields if name not in ("model", "experiment")}


def _shown(frozen: Frozen, model: nn.Module) -> str:
    still = sum(parameter.numel() for stage in frozen.stages for parameter in stage.parameters)
    all_of_it = sum(parameter.numel() for parameter in model.parameters())
    names = ", ".join(stage.name for stage in frozen.stages)
    return f"frozen: {names} ({still:,} of {all_of_it:,} parameters)"


def _numbers(values: Iterable[float] | None) -> str:
    return " ".join(f"{value:.4g}" for value in values or ())


def fingerprint(recipe: dict[str, Any]) -> str:
    """12 hex digits that change when anything in `recipe` does."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
