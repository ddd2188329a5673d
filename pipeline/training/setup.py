"""A recipe on this machine: its images, networks, optimizer and batches, which range test and training share."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from pipeline import data, models
from pipeline.data import augment, policies
from pipeline.data.batches import Place, TrainBatches, derive_seed
from pipeline.models import weights
from pipeline.models.weights import Fitted, Pretrained
from pipeline.params import DataParams, ModelParams, RecipeParams, TrainParams
from pipeline.training import class_weights, device, memory, optimizers
from pipeline.training.freezing import Frozen

SizeAfter = Callable[[float], int]

UNTOLD = "bicubic"  # interpolation where no weights, or none that tell it, are started from
SAMPLE, SAMPLE_PIXELS = 5000, 5000 * 32**2  # train images at most, for weights that follow from them: fewer large ones


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

    @property
    def mirrors(self) -> bool:
        """Whether its images are mirrored: on request, or where a mirrored one still belongs to its class."""
        return self.params.flip != "off" and (self.params.flip != "auto" or self.splits.flip)

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
        last_batch = (len(self.splits.train) - 1) % params.batch_size + 1
        first_size = params.first_size if isinstance(params, TrainParams) else 0
        models.check_size(params.model, params.image_size, last_batch, first_size, **model_options(params))
        if start is None:
            return []
        outline = model_outline(params, len(self.splits.classes))
        lines = [f"starting from {start.source}: {self._fitted(start, outline).head}"]
        if start.mean is not None:
            lines.append(f"normalised as these weights need it: mean {_numbers(start.mean)}, std {_numbers(start.std)}")
        if start.interpolation is not None:
            lines.append(f"images scaled as these weights need it: {start.interpolation}")
        if start.image_size is not None and start.image_size < params.image_size:
            made = f"{start.image_size} px"
            lines.append(f"image_size={params.image_size} differs from the {made} these weights were made for")
        if (frozen := self.frozen(outline, 0)) is not None:
            lines.append(_shown(frozen, outline))
        return lines

    def warned(self) -> list[str]:
        """What would waste the weights it starts from, or has no room, in a line each that says what to give."""
        size, made = self.params.image_size, None if self.pretrained is None else self.pretrained.image_size
        lines = [shortage] if (shortage := self._shortage()) else []
        if made is not None and made > size:
            lines.append(
                f"image_size={size}: these weights were made for {made} px, and do worse here; give image_size={made}"
            )
        return lines

    def _shortage(self) -> str:
        params = self.params
        if params.batch_size * params.image_size**2 <= memory.WORTH_COUNTING:
            return ""
        outline = model_outline(params, len(self.splits.classes)).to("meta").train()
        if not params.unfreeze_epoch and (frozen := self.frozen(outline)) is not None:
            frozen.begin(1)
        return memory.shortage(outline, params.batch_size, params.image_size, self.device, self.precision)

    def _fitted(self, start: Pretrained, model: nn.Module) -> Fitted:
        return weights.fitted(model, start, self.splits.classes)

    def _sample(self) -> Tensor:
        """Normalised train images from all over the split, (N, 3, H, W)."""
        train = self.splits.train
        number = min(SAMPLE, SAMPLE_PIXELS // self.params.image_size**2, len(train))
        rows = np.linspace(0, len(train) - 1, number).astype(np.int64)
        return augment.normalise(torch.from_numpy(train.take(rows)), self.splits.mean, self.splits.std)

    def _augment(self, images: Tensor, labels: Tensor, place: Place, generator: Generator) -> tuple[Tensor, Tensor]:
        params = self.params
        if params.crop_area:
            images = augment.random_resized_crop(images, params.image_size, params.crop_area, generator)
        elif params.crop_padding:
            images = augment.random_crop(images, params.crop_padding, generator)
        if params.flip == "alternate":
            images = augment.flip(images, place.mirrored)
        elif self.mirrors:
            images = augment.random_flip(images, generator)
        if params.augment != "basic":
            images = policies.apply(params.augment, images)
        pixels = augment.normalise(images, self.splits.mean, self.splits.std)
        if params.cutout:
            pixels = augment.cutout(pixels, params.cutout, generator)
        if params.mixup or params.cutmix:
            return augment.mix(pixels, labels, len(self.splits.classes), params.mixup, params.cutmix)
        return pixels, labels


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
