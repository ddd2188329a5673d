"""Calibrates confidences with one temperature for all logits (Guo et al. 2017, arXiv:1706.04599)."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

LOWEST, HIGHEST = 0.01, 100.0  # the range of temperatures


@dataclass(frozen=True)
class Temperature:
    """The divisor of logits, and its effect on the images it was fitted on: loss (nats) and ECE in [0, 1]."""

    value: float
    num_images: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float


def fit(logits: np.ndarray, labels: np.ndarray) -> Temperature | None:
    """The temperature in [0.01, 100] with the lowest mean cross-entropy of `logits` (N, C) for `labels` (N,) int64.

    None if every image is classified correctly: the loss then falls until temperature 0, and images without an error do
    not show how frequent errors are.
    """
    # Imported late, so that a prediction for one photo does not wait for them.
    from scipy.optimize import minimize_scalar

    from pipeline.results.metrics import calibration

    exact = logits.astype(np.float64)
    if (exact.max(axis=1) == _at_labels(labels, exact)).all():
        return None
    # The loss is convex in 1 / temperature, so it has only one minimum.
    found = minimize_scalar(
        lambda log: _loss(exact, labels, np.exp(log)),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    value = float(np.exp(found.x))
    (nll_before, ece_before), (nll_after, ece_after) = (
        (_loss(exact, labels, each), calibration(labels, softmax(exact / each, axis=1))[0]) for each in (1.0, value)
    )
    return Temperature(value, len(labels), nll_before, nll_after, ece_before, ece_after)


def _loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-_at_labels(labels, log_softmax(logits / temperature, axis=1)).mean())


def _at_labels(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    return values[np.arange(len(labels)), labels]
