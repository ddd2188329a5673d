"""How much each class counts in the loss of training."""

from collections.abc import Callable

import numpy as np

BETA = 0.999  # of the effective number: what a class has beyond some thousand images adds little


def balanced(counts: np.ndarray) -> np.ndarray:
    """The inverse of each class's images, `counts` (C,)."""
    return 1 / counts


def effective(counts: np.ndarray) -> np.ndarray:
    """The inverse of each class's effective number of images (Cui et al. 2019, arXiv:1901.05555)."""
    return (1 - BETA) / (1 - BETA**counts)


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"balanced": balanced, "effective": effective}


def of(labels: np.ndarray, num_classes: int, rule: str) -> np.ndarray:
    """Weights (C,) float32 by `rule`, one of `RULES`, for train images of `labels` (N,) int64, of each class some.

    Their mean over the images is 1, so that the loss keeps its scale, and a rate its meaning.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = RULES[rule](counts)
    return (weights * len(labels) / (weights @ counts)).astype(np.float32)
