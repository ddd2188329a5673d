"""Builds trainings from parameters and images."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline import data, models
from pipeline.data import augmentation
from pipeline.data.batches import NormalisedBatches, TrainBatches, derive_seed, train_sizes
from pipeline.models import weights
from pipeline.models.stages import Frozen
from pipeline.models.weights import Fitted, Pretrained
from pipeline.params import DataParams, LadderParams, ProbeParams, RecipeParams, TrainParams
from pipeline.training import compilation, device, event_log, head_training, loss, optimizers, recomputation, schedules
from pipeline.training.ema import MovingAverage
from pipeline.training.training import Training

INTERPOLATION = "bicubic"  # unless the starting weights need another
# Weights that depend on the images are set from at most this many train images, with at most this many pixels in all.
SAMPLE, SAMPLE_PIXELS = 5000, 5000 * 32**2
LARGE_SET = 10_000  # train images of 32 px (fewer if they are larger), from which on one ladder is enough


@dataclass(frozen=True)
class Recipe:
    """Parameters, loaded splits, device, number format and starting weights: all that defines a training."""

    params: RecipeParams
    splits: data.Splits
    device: torch.device
    precision: str
    pretrained: Pretrained | None = None

    def one_cycle(self, max_lr: float) -> Training:
        """The OneCycle training with peak rate `max_lr`. The parameters must be training parameters."""
        params = self.params
        assert isinstance(params, TrainParams)
        batches = self.train_batches(params.seed)
        return self.cycle(max_lr, batches, params.epochs * len(batches), self.splits.valid)

    def cycle(self, max_lr: float, batches: TrainBatches, num_updates: int, valid: data.Split | None) -> Training:
        """A OneCycle of `num_updates` updates on `batches`, validated on `valid`, if there is any."""
        params = self.params
        assert isinstance(params, TrainParams)
        model = self.model(params.seed)
        ema = MovingAverage(model, params.ema_decay) if params.ema_decay else None
        optimizer = self.optimizer(model, max_lr, params.momentum)
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
        training = Training(
            model,
            batches,
            optimizer,
            schedule,
            epochs=params.epochs,
            precision=self.precision,
            label_smoothing=params.label_smoothing,
            class_weights=self.class_weights(),
            valid=None if valid is None else NormalisedBatches(self.splits, valid, params.batch_size, self.device),
            ema=ema,
            frozen=self.frozen(model, params.unfreeze_epoch),
            freezes_norms=params.freeze_norms == "on",
            accumulate=params.accumulate,
            clip_grad_norm=params.clip_grad_norm,
            is_compiled=compilation.choose(params.compile, self.device, num_updates),
            log=event_log.EventLog(params.select_by, len(valid or ())),
        )
        return head_training.on_features(training, params, self.mirrors, self.splits, self.backbone)

    def num_ladders(self, ladder: LadderParams) -> int:
        """How many ladders a range test climbs."""
        if ladder.num_repeats != "auto":
            return ladder.num_repeats
        return 1 if len(self.splits.train) * self.params.image_size**2 > LARGE_SET * 32**2 else 3

    @property
    def updates_per_epoch(self) -> int:
        """The number of updates in one pass over the train split."""
        return len(train_sizes(len(self.splits.train), self.params.batch_size))

    @property
    def interpolation(self) -> str:
        """How the images of `splits` were scaled."""
        return _interpolation(self.pretrained)

    @property
    def backbone(self) -> str:
        """The identity of network and starting weights."""
        return f"{self.params.model} {self.pretrained.identity if self.pretrained else None}"

    @property
    def mirrors(self) -> bool:
        """Whether images are mirrored: on request, or by default if a mirrored image still belongs to its class."""
        return self.params.flip != "off" and (self.params.flip != "auto" or self.splits.flip)

    @property
    def recomputes(self) -> bool:
        """Whether the backward pass computes activations again."""
        return isinstance(self.params, TrainParams) and self.params.checkpoint_activations == "on"

    def model(self, seed: int) -> nn.Module:
        """A new network. Its weights depend only on `seed`, unless the recipe has starting weights."""
        with device.random_state_kept(self.device):
            torch.manual_seed(derive_seed(seed, "weights"))
            options = {"image_size": self.params.image_size, **self.params.network_options()}
            model = models.build(self.params.model, num_classes=len(self.splits.classes), **options)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = self.params.norm_momentum
        if self.pretrained is not None:
            model.load_state_dict(self.fitted(model).state)
        elif models.needs_images(self.params.model):
            models.fit_to_images(self.params.model, model, self._sample())
        if self.recomputes:
            recomputation.recompute(model)
        return model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def outline(self) -> nn.Module:
        """The network without memory for its weights."""
        options = {"image_size": self.params.image_size, **self.params.network_options()}
        return models.outline(self.params.model, num_classes=len(self.splits.classes), **options)

    def fitted(self, model: nn.Module) -> Fitted:
        """The starting weights as `model` takes them. Raises ValueError if they do not fit it."""
        assert self.pretrained is not None
        return weights.fitted(model, self.pretrained, self.splits.classes)

    def frozen(self, model: nn.Module, until_epoch: int = 0) -> Frozen | None:
        """The stages of `model` that do not learn before `until_epoch` (0: in any epoch); None if all of it learns."""
        freeze = self.params.freeze
        return None if freeze == "none" else Frozen(model, None if freeze == "backbone" else freeze, until_epoch)

    def train_batches(self, seed: int, num_updates: int | None = None) -> TrainBatches:
        """Shuffled, augmented, normalised batches of the train split.

        num_updates: the length of the training, if it is not the epochs of the parameters. Images are small in a share
        of it, if the parameters ask for that. With 0, all images have the same size.
        """
        params = self.params
        flip: Literal["off", "random", "alternate"]
        flip = "alternate" if params.flip == "alternate" else "random" if self.mirrors else "off"
        augment = augmentation.Augmentation(
            image_size=params.image_size,
            mean=self.splits.mean,
            std=self.splits.std,
            num_classes=len(self.splits.classes),
            crop_area=params.crop_area,
            crop_padding=params.crop_padding,
            flip=flip,
            policy=params.augment,
            cutout=params.cutout,
            mixup=params.mixup,
            cutmix=params.cutmix,
        )
        if num_updates != 0 and isinstance(params, TrainParams):
            passes = params.epochs if num_updates is None else num_updates * params.batch_size / len(self.splits.train)
            augment = replace(augment, first_size=params.first_size, first_passes=params.first_share * passes)
        return TrainBatches(self.splits.train.with_margin(), params.batch_size, self.device, seed=seed, augment=augment)

    def identity(self, ladder: LadderParams | None = None) -> dict[str, Any]:
        """Everything that a good rate depends on, by name: parameters, number format, images, starting weights.

        With `ladder`, also the rule of a range test, and its ladder or the length and shape of the whole training.
        """
        start = "none" if self.pretrained is None else self.pretrained.identity
        own = {**self.params.identity(), "weights": start, "precision": self.precision, "data": self.splits.digest}
        if ladder is None:
            return own
        params = self.params
        assert isinstance(params, TrainParams)
        if params.lr_rule == "cycles":
            return {**own, "lr_rule": "cycles", **params.cycle_shape()}
        return {**own, "lr_rule": params.lr_rule, **ladder.rungs(), "num_repeats": self.num_ladders(ladder)}

    def fingerprint(self, ladder: LadderParams | None = None) -> str:
        """12 hex digits that change when anything in `identity` changes."""
        return hashlib.sha256(json.dumps(self.identity(ladder), sort_keys=True).encode()).hexdigest()[:12]

    def optimizer(self, model: nn.Module, lr: float, momentum: float) -> Optimizer:
        """The optimizer of `model`, with first rate `lr`."""
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

    def class_weights(self) -> Tensor | None:
        """The weight of each class in the loss, (C,); None if all weights are equal."""
        if self.params.class_weights == "none":
            return None
        weights = loss.class_weights(self.splits.train.labels, len(self.splits.classes), self.params.class_weights)
        return torch.from_numpy(weights).to(self.device)

    def _sample(self) -> Tensor:
        """Normalised train images, evenly spaced over the split, (N, 3, H, W)."""
        some = self.splits.train.spread(min(SAMPLE, SAMPLE_PIXELS // self.params.image_size**2))
        images = torch.from_numpy(some.take(np.arange(len(some))))
        return augmentation.normalise(images, self.splits.mean, self.splits.std)


def load(params: RecipeParams, pretrained: Pretrained | None = None) -> Recipe:
    """Loads the images, and chooses device and number format. Raises ValueError if the parameters do not fit together.

    pretrained: the weights that `params` name. They say how images are scaled and, unless `params` do, normalised.
    """
    assert (pretrained is None) == (params.weights == "none")
    where = device.choose(params.device, repeats_shapes=True)
    splits = load_splits(params, interpolation=_interpolation(pretrained))
    if len(splits.train) < params.batch_size and not isinstance(params, ProbeParams):
        raise ValueError(f"batch_size={params.batch_size} is more than the {len(splits.train)} train images")
    mean, std = (pretrained.mean, pretrained.std) if pretrained else (None, None)
    given = [None if each == "auto" else each for each in (params.mean, params.std)]
    splits = replace(splits, mean=given[0] or mean or splits.mean, std=given[1] or std or splits.std)
    return Recipe(params, splits, where, device.choose_precision(params.precision, where), pretrained)


def load_splits(params: DataParams, data_dir: str = "", interpolation: str = INTERPOLATION) -> data.Splits:
    """The splits that `params` declare, scaled by `interpolation`. `data_dir`, if given, replaces `params.data_dir`."""
    of_parts = ("valid_fraction", "limit_train", "limit_test", "limit_seed", "folds", "fold")
    of_images = ("labels", "image_size", "resize", "margin")
    return data.load(
        params.dataset,
        data_dir=data_dir or params.data_dir,
        valid_as_test=params.valid_as_test == "on",
        interpolation=interpolation,
        **{name: getattr(params, name) for name in (*of_parts, *of_images)},
    )


def _interpolation(start: Pretrained | None) -> str:
    return INTERPOLATION if start is None or start.interpolation is None else start.interpolation
