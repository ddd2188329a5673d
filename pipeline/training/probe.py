"""A linear probe: a logistic regression on the features of a frozen network, used as its head."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from pipeline.models.scaled_head import ScaledLinear
from pipeline.models.stages import head

STRENGTHS = tuple(10.0**power for power in range(-4, 2))  # C of the regression, the inverse of its weight decay
FOLDS = 5
DEFAULT_STRENGTH = 1e-2  # if no images can choose one
MANY = 2_000  # with more train images, validation alone chooses the strength: cross-validation would take minutes
MAX_ITERATIONS = 1_000


@dataclass(frozen=True)
class Probe:
    """A head for a network: logits are features @ weight.T + bias."""

    weight: np.ndarray  # (C, D) float32
    bias: np.ndarray  # (C,) float32
    strength: float  # C of the regression
    chosen_by: str  # in words
    out_of_fold: np.ndarray | None = None  # (N, C) probabilities of the train images, each from a fit without it


def fit(
    train: np.ndarray,
    labels: np.ndarray,
    valid: np.ndarray | None,
    valid_labels: np.ndarray | None,
    num_classes: int,
    groups: np.ndarray | None = None,
) -> Probe:
    """The logistic regression of `labels` (N,) int64 on standardised features `train` (N, D).

    Chooses the strength with the lowest log loss: by cross-validation over the train images or, if there are many of
    them, on the validation images. A group of `groups` (N,) int64 is in one fold.
    """
    folds = _folds(labels, groups, num_classes)
    out_of_fold = None
    if valid is not None and valid_labels is not None and (len(labels) > MANY or not folds):
        losses = {
            each: _loss(valid_labels, _regression(each).fit(train, labels).predict_proba(valid)) for each in STRENGTHS
        }
        chosen_by = f"the log loss of {len(valid_labels):,} validation images"
    elif folds:
        tried = {
            each: cross_val_predict(_regression(each), train, labels, cv=folds, method="predict_proba")
            for each in STRENGTHS
        }
        losses = {each: _loss(labels, probabilities) for each, probabilities in tried.items()}
        out_of_fold = tried[min(losses, key=losses.__getitem__)]
        chosen_by = f"the log loss of {len(folds)}-fold cross-validation over {len(labels):,} train images"
    else:
        losses = {DEFAULT_STRENGTH: 0.0}
        only = "image" if groups is None else "group of images"
        chosen_by = f"default: a class has too few train images, such as one {only}, and there is no validation split"
    strength = min(losses, key=losses.__getitem__)
    return _probe(_regression(strength).fit(train, labels), strength, chosen_by, out_of_fold)


def _folds(labels: np.ndarray, groups: np.ndarray | None, num_classes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit, rows to predict) of each fold; none if a class cannot be in every fit."""
    of_units = labels if groups is None else np.unique(np.stack([groups, labels]), axis=1)[1]
    number = min(FOLDS, int(np.bincount(of_units, minlength=num_classes).min()))
    if number < 2:
        return []
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = list(kind(number, shuffle=True, random_state=0).split(labels, labels, groups))
    is_complete = all(len(np.unique(labels[rows])) == num_classes for rows, _ in folds)
    return folds if is_complete else []


def check(model: nn.Module) -> None:
    """Raises ValueError if the head of `model` cannot be a probe."""
    last = head(model)[1]
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise ValueError(f"a probe needs a linear head with a bias, and the head of this network is {last}")


def put(model: nn.Module, probe: Probe) -> None:
    """Makes the probe the head of `model`, which passed `check`."""
    last = head(model)[1]
    assert isinstance(last, nn.Linear)
    scale = last.scale if isinstance(last, ScaledLinear) else 1.0
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(probe.weight / scale))
        last.bias.copy_(torch.from_numpy(probe.bias / scale))


def strength(train: np.ndarray, labels: np.ndarray, valid: np.ndarray, valid_labels: np.ndarray) -> float:
    """The strength with which a fit to `train` (N, D) and `labels` (N,) has the lowest log loss on `valid`."""
    return min(STRENGTHS, key=lambda each: _loss(valid_labels, predict(each, train, labels, valid)))


def predict(strength: float, train: np.ndarray, labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Class probabilities (n, C) of `images` (n, D), by a fit to `train` (N, D) and `labels` (N,) from 0 to C - 1."""
    fitted = _regression(strength).fit(train, labels)
    found = np.zeros((len(images), labels.max() + 1))
    found[:, fitted.classes_] = fitted.predict_proba(images)
    return found / found.sum(axis=1, keepdims=True)  # float32 does not sum to 1 exactly


def _regression(strength: float):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))


def _loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))


def _probe(  # type: ignore[no-untyped-def]
    fitted, strength: float, chosen_by: str, out_of_fold: np.ndarray | None
) -> Probe:
    scaler, regression = fitted[0], fitted[1]
    weight, bias = regression.coef_, regression.intercept_
    if len(weight) == 1:  # with two classes, the regression has one logit, for the second class against the first
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    return Probe(weight.astype(np.float32), bias.astype(np.float32), strength, chosen_by, out_of_fold)
