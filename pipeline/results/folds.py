"""The mean over the folds of a cross-validation, with an error that takes account of the images they share."""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Mean(NamedTuple):
    """The mean over folds, its standard error, and the ends of its interval."""

    value: float
    standard_error: float
    low: float
    high: float


def mean(values: np.ndarray, confidence: float = 0.95) -> Mean:
    """The mean of `values` (K,), one number per fold, with the corrected error of Nadeau and Bengio.

    The trainings share most of their images, so their results vary less from fold to fold than from image set to image
    set. The usual s / sqrt(K) is too small. The corrected variance is s² (1/K + 1/(K - 1)), as a fold has 1/(K - 1)
    times the images of its training (Nadeau & Bengio 2003, doi:10.1023/A:1024068626366). Needs at least two folds.
    """
    number = len(values)
    error = float(values.std(ddof=1)) * math.sqrt(1 / number + 1 / (number - 1))
    half = float(t.isf((1 - confidence) / 2, number - 1)) * error
    value = float(values.mean())
    return Mean(value, error, value - half, value + half)


def mean_accuracy(values: np.ndarray) -> Mean:
    """The `mean` of accuracies in [0, 1]. Its interval ends at 0 and 1, which Student's t does not know."""
    found = mean(values)
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def in_words(found: Mean, alpha: float) -> str:
    """The interval of a mean difference of accuracies, in points."""
    if not found.standard_error:
        return "all folds have the same difference, so there is no interval over folds"
    return (
        f"{100 * (1 - alpha):.4g} % interval over folds {100 * found.low:+.2f} to {100 * found.high:+.2f}, "
        f"corrected standard error {100 * found.standard_error:.2f}"
    )


def verdict(found: Mean, a: str, b: str) -> str:
    """Says which recipe is better, from the mean difference of `b` minus `a`."""
    if found.standard_error and (found.low > 0 or found.high < 0):
        return f"{b if found.value > 0 else a} is better"
    return "these folds show no difference between the two"
