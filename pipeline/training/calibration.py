"""Calibrates a trained network on the validation split: how sure its answers are, and which images are new to it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data import Split, Splits
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.models.features import with_features
from pipeline.results import novelty, temperature
from pipeline.results.novelty import Familiar
from pipeline.results.temperature import Temperature
from pipeline.training.device import autocast

SAMPLE = 10_000  # train images whose features are taken


@dataclass(frozen=True)
class Calibration:
    """The calibration of one network. There is no temperature if the network makes no error on the validation split."""

    temperature: Temperature | None
    familiar: Familiar


def num_images(splits: Splits) -> int:
    """The number of images that a calibration looks at."""
    return len(splits.valid or ()) + min(SAMPLE, len(splits.train))


def calibrate(
    model: nn.Module, splits: Splits, precision: str, done: Callable[[int], None] = lambda done: None
) -> Calibration:
    """The calibration of `model` from its train and validation splits. The model must be in evaluation mode.

    done: called with the number of images that it has looked at.
    """
    assert splits.valid is not None
    valid, train = splits.valid, _sample(splits.train)
    logits, valid_features = _look_at_all(model, splits, valid, precision, done)
    _, features = _look_at_all(model, splits, train, precision, lambda more: done(len(valid) + more))
    return Calibration(temperature.fit(logits, valid.labels), novelty.fit(features, train.labels, valid_features))


@torch.inference_mode()
def look(model: nn.Module, images: Tensor, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, C) and features (B, D), float32, for `images` as the model takes them, on its device."""
    with autocast(images.device, precision):
        logits, features = with_features(model, images)
    return logits.float().cpu().numpy(), features.cpu().numpy()


def _look_at_all(
    model: nn.Module, splits: Splits, split: Split, precision: str, done: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features of a split."""
    where = next(model.parameters()).device
    looks, number = [], 0
    for images, _ in NormalisedBatches(splits, split, batch_size(split.source.shape[-1]), where):
        looks.append(look(model, images, precision))
        number += len(images)
        done(number)
    logits, features = (np.concatenate(each) for each in zip(*looks, strict=True))
    return logits, features


def _sample(train: Split) -> Split:
    """A sample of images, evenly spaced over the train split."""
    rows = np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(np.int64)
    names = [train.names[row] for row in rows]
    return replace(train, rows=train.rows[rows], labels=train.labels[rows], names=names)
