"""A linear probe: a frozen network's features, computed once, and a logistic regression on them as its head."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from pipeline.data import Split, Splits, cache
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.disk import replacing
from pipeline.models.stages import head
from pipeline.training.device import autocast

log = logging.getLogger(__name__)

STRENGTHS = tuple(10.0**power for power in range(-4, 2))  # of the regression: C, the inverse of its weight decay
FOLDS = 5
MANY = 2_000  # train images from which on validation alone chooses the strength: cross-validation would take minutes
MAX_ITERATIONS = 1_000


@dataclass(frozen=True)
class Probe:
    """A head for a network: logits are features @ weight.T + bias."""

    weight: np.ndarray  # (C, D) float32
    bias: np.ndarray  # (C,) float32
    strength: float  # C of the regression
    chosen_by: str  # in words


def features(
    model: nn.Module, splits: Splits, split: Split, precision: str, identity: str, look: Callable[[int], None]
) -> np.ndarray:
    """The input of the head of `model` for each image of `split`, (N, D) float32.

    Kept in the cache under `identity` (of the weights), the images and the number format. look: called with the number
    of images done. Raises ValueError for a head that is no linear layer.
    """
    last = head(model)[1]
    if not isinstance(last, nn.Linear):
        raise ValueError(f"the head of this network is a {type(last).__name__}, and a probe takes a linear layer")
    key = hashlib.sha256(f"{identity} {split.digest()} {splits.mean} {splits.std} {precision}".encode()).hexdigest()
    file = cache.folder() / "features" / f"{key[:32]}.npy"
    kept = _kept(file, len(split), last.in_features)
    if kept is not None:
        look(len(split))
        return kept
    batches = NormalisedBatches(splits, split, batch_size(split.image_size), next(model.parameters()).device)
    found = _compute(model, last, batches, precision, look)
    # A full disk costs the time of the next probe, no more.
    with suppress(OSError), replacing(file) as path, path.open("wb") as stream:
        np.save(stream, found, allow_pickle=False)
    return found


@torch.inference_mode()
def _compute(
    model: nn.Module, last: nn.Linear, batches: NormalisedBatches, precision: str, look: Callable[[int], None]
) -> np.ndarray:
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().flatten(1).cpu()))
    model.eval()
    done = 0
    try:
        for images, labels in batches:
            with autocast(images.device, precision):
                model(images)
            done += len(labels)
            look(done)
    finally:
        handle.remove()
    return torch.cat(seen).numpy()


def _kept(file: Path, rows: int, columns: int) -> np.ndarray | None:
    try:
        found = np.load(file, allow_pickle=False)
        return found if found.shape == (rows, columns) and found.dtype == np.float32 else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("the cached features in %s are damaged (%s): computing again", file, error)
        return None


def fit(
    train: np.ndarray, labels: np.ndarray, valid: np.ndarray | None, valid_labels: np.ndarray | None, num_classes: int
) -> Probe:
    """The logistic regression of `labels` (N,) int64 on standardised features `train` (N, D).

    Its strength is the one of least log loss: by cross-validation over the train images, or with many of them on the
    validation images.
    """
    folds = min(FOLDS, int(np.bincount(labels, minlength=num_classes).min()))
    if valid is not None and valid_labels is not None and (len(labels) > MANY or folds < 2):
        strength = min(
            STRENGTHS, key=lambda each: _loss(valid_labels, _regression(each).fit(train, labels).predict_proba(valid))
        )
        chosen_by = f"the log loss of {len(valid_labels):,} validation images"
    elif folds >= 2:
        division = StratifiedKFold(folds, shuffle=True, random_state=0)
        tried = {
            each: cross_val_predict(_regression(each), train, labels, cv=division, method="predict_proba")
            for each in STRENGTHS
        }
        strength = min(STRENGTHS, key=lambda each: _loss(labels, tried[each]))
        chosen_by = f"the log loss of {folds}-fold cross-validation over {len(labels):,} train images"
    else:
        strength, chosen_by = 1e-2, "default: a class has one train image, and there is no validation split"
    return _probe(_regression(strength).fit(train, labels), strength, chosen_by)


def put(model: nn.Module, probe: Probe) -> None:
    """Makes the probe the head of `model`."""
    last = head(model)[1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(probe.weight))
        if last.bias is not None:
            last.bias.copy_(torch.from_numpy(probe.bias))


def _regression(strength: float):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))


def _loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def _probe(fitted, strength: float, chosen_by: str) -> Probe:  # type: ignore[no-untyped-def]
    scaler, regression = fitted[0], fitted[1]
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # of two classes: the logit of the second over the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    return Probe(weight.astype(np.float32), bias.astype(np.float32), strength, chosen_by)
