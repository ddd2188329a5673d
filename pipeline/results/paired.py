"""Two classifiers on the same images: which is right where the other is not, and by how much it is right more often."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


class Mcnemar(NamedTuple):
    """Images that only one of two classifiers has right, and how often two equally good ones would differ as much."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> Mcnemar:
    """McNemar's exact test, two-sided, of which images (N,) bool are right (McNemar 1947, doi:10.1007/BF02295996).

    `p_value` is 1 where no image tells the two apart. Raises ValueError where they are not of the same images.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"{len(correct_a)} and {len(correct_b)} images are not the same images")
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    told_apart = only_a + only_b
    return Mcnemar(only_a, only_b, float(binomtest(only_a, told_apart).pvalue) if told_apart else 1.0)
