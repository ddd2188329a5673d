"""Calibrates a trained network on the validation split: how sure its answers are, and which images are new to it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from pipeline.data import Split, Splits
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.data.splits import evenly_spaced
from pipeline.models.features import joined, with_features
from pipeline.results import novelty, prediction_sets, rejection, temperature
from pipeline.results.novelty import Familiar
from pipeline.results.prediction_sets import PredictionSets
from pipeline.results.rejection import MOST_ERROR, Outcomes
from pipeline.results.temperature import Temperature
from pipeline.training.device import autocast
from pipeline.training.features import Features
from pipeline.training.update import attention_kernel

SAMPLE = 10_000  # train images whose features are taken


@dataclass(frozen=True)
class Calibration:
    """The calibration of one network. There is no temperature if the network makes no error on the validation split."""

    temperature: Temperature | None
    familiar: Familiar
    outcomes: Outcomes  # of the validation images, with calibrated confidences
    most_error: float = MOST_ERROR  # of the answers that are not unsure, at most this share was wrong on validation
    sets: PredictionSets | None = None  # None for weights of an earlier version

    @cached_property
    def threshold(self) -> float:
        """The confidence below which an answer is unsure."""
        return self.outcomes.threshold(self.most_error)

    def wanting(self, most_error: float | Literal["auto"], coverage: float | Literal["auto"]) -> Self:
        """This calibration with another `most_error` and another coverage of its sets; `auto` changes nothing."""
        sets = self.sets if self.sets is None or coverage == "auto" else self.sets.covering(coverage)
        return replace(self, most_error=self.most_error if most_error == "auto" else most_error, sets=sets)

    @property
    def known_sets(self) -> PredictionSets | None:
        """The sets of classes, if validation has enough images for them."""
        return self.sets if self.sets is not None and self.sets.is_known else None

    def inside(self, probabilities: np.ndarray) -> np.ndarray | None:
        """The sets (N, C) bool for calibrated `probabilities` (N, C); None if there are none."""
        return None if self.known_sets is None else self.known_sets.inside(probabilities)


def of_features(
    logits: np.ndarray,
    valid: Features,
    valid_labels: np.ndarray,
    train: Features,
    train_labels: np.ndarray,
) -> Calibration:
    """The calibration from what the network makes of validation images (with their `logits`) and train images."""
    rows = evenly_spaced(len(train_labels), SAMPLE)
    learned = _joined(Features(train.of_head[rows], train.of_stage[rows]))
    familiar = novelty.fit(learned, train_labels[rows], _joined(valid))
    return _of_logits(logits, valid_labels, familiar)


def _of_logits(logits: np.ndarray, labels: np.ndarray, familiar: Familiar) -> Calibration:
    fitted = temperature.fit(logits, labels)
    probabilities = softmax(logits.astype(np.float64) / (1.0 if fitted is None else fitted.value), axis=1)
    sets = prediction_sets.fit(probabilities[np.arange(len(labels)), labels])
    return Calibration(fitted, familiar, rejection.outcomes(probabilities, labels), sets=sets)


def num_images(splits: Splits) -> int:
    """The number of images that the model sees for a calibration."""
    return len(splits.valid or ()) + min(SAMPLE, len(splits.train))


def calibrate(
    model: nn.Module,
    splits: Splits,
    precision: str,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """The calibration of `model` from its train and validation splits. The model must be in evaluation mode.

    on_progress: called with the number of images that the model has seen so far.
    """
    assert splits.valid is not None
    valid, train = splits.valid, splits.train.spread(SAMPLE)
    logits, valid_features = split_logits_and_features(model, splits, valid, precision, on_progress)
    _, features = split_logits_and_features(
        model, splits, train, precision, lambda more: on_progress(len(valid) + more)
    )
    return _of_logits(logits, valid.labels, novelty.fit(features, train.labels, valid_features))


@torch.inference_mode()
def logits_and_features(model: nn.Module, images: Tensor, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, C) and features (B, D), float32, for `images` as the model takes them, on its device."""
    tokens = getattr(model, "seq_length", None)  # as in `update.train_step`
    with autocast(images.device, precision), attention_kernel(tokens, images.device, precision):
        logits, features = with_features(model, images)
    return logits.float().cpu().numpy(), features.cpu().numpy()


def split_logits_and_features(
    model: nn.Module,
    splits: Splits,
    split: Split,
    precision: str,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and features (N, D) of a split, float32. `on_progress` is called as by `calibrate`."""
    where = next(model.parameters()).device
    of_batches, number = [], 0
    for images, _ in NormalisedBatches(splits, split, batch_size(split.source.shape[-1]), where):
        of_batches.append(logits_and_features(model, images, precision))
        number += len(images)
        on_progress(number)
    logits, features = (np.concatenate(each) for each in zip(*of_batches, strict=True))
    return logits, features


def _joined(found: Features) -> np.ndarray:
    return joined(torch.from_numpy(found.of_head), torch.from_numpy(found.of_stage)).numpy()
