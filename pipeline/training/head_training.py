"""Trains only the head, on features that are computed once. This works if the backbone and the images never change."""

from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from pipeline.data import Split, Splits
from pipeline.data.augmentation import Place
from pipeline.data.batches import TrainBatches
from pipeline.models.stages import head
from pipeline.params import TrainParams
from pipeline.training import features
from pipeline.training.training import Training

Labelled = tuple[Tensor, Tensor]


def on_features(training: Training, params: TrainParams, mirrors: bool, splits: Splits, backbone: str) -> Training:
    """`training` on features (B, D) instead of images, if they never change for an image; else `training` itself.

    The features are computed here or read from the cache. mirrors: whether images are mirrored. backbone: identifies
    network and starting weights.
    """
    if mirrors or not _has_fixed_features(training, params):
        return training
    model, before = training.model, training.batches

    def features_of(split: Split) -> Tensor:
        found = features.of_split(model, splits, split, training.precision, backbone)
        return torch.from_numpy(found.of_head).to(before.device)

    valid = None if splits.valid is None else [(features_of(splits.valid), _labels(splits.valid, before.device))]
    batches = TrainBatches(
        splits.train,
        before.batch_size,
        before.device,
        seed=params.seed,
        augment=_unchanged,
        resident_images=features_of(splits.train),
    )
    return replace(training, batches=batches, valid=valid, part=_head)


def _has_fixed_features(training: Training, params: TrainParams) -> bool:
    changes = (params.crop_area, params.crop_padding, params.cutout, params.mixup, params.cutmix, params.first_size)
    if training.frozen is None or params.freeze != "backbone" or params.unfreeze_epoch or params.watch_images:
        return False
    if any(changes) or params.augment != "basic":
        return False
    training.model.train()
    training.frozen.begin(1)
    return isinstance(_head(training.model), nn.Linear) and not _drops(training.model)


def _unchanged(features: Tensor, labels: Tensor, place: Place, generator: Generator) -> Labelled:
    return features, labels


def _labels(split: Split, device: torch.device) -> Tensor:
    return torch.from_numpy(split.labels).to(device)


def _head(model: nn.Module) -> nn.Module:
    return head(model)[1]


def _drops(model: nn.Module) -> bool:
    """Whether `model` drops values at random before its head. timm's networks keep that rate on the network itself."""
    layers = [each for each in model.modules() if each.training and "Dropout" in type(each).__name__]
    return bool(getattr(model, "drop_rate", 0)) or any(getattr(each, "p", 0) for each in layers)
