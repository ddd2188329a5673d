"""Two classifiers on the same images: which is right where the other is not, and by how much it is right more often."""

from typing import NamedTuple

import numpy as np
import scipy  # whose statistics come once they are used: every start of a run comes by here

RESAMPLES = 9999
VALUES_AT_A_TIME = 4_000_000  # of resamples in memory, 32 MB


class Mcnemar(NamedTuple):
    """Images that only one of two classifiers has right, and how often two equally good ones would differ as much."""

    only_a: int
    only_b: int
    p_value: float


class Difference(NamedTuple):
    """How much more the second has than the first, and the ends of the interval; NaN where there is none."""

    value: float
    low: float
    high: float


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> Mcnemar:
    """McNemar's exact test, two-sided, of which images (N,) bool are right (McNemar 1947, doi:10.1007/BF02295996).

    `p_value` is 1 where no image tells the two apart. Raises ValueError where they are not of the same images.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"{len(correct_a)} and {len(correct_b)} images are not the same images")
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    told_apart = only_a + only_b
    return Mcnemar(only_a, only_b, float(scipy.stats.binomtest(only_a, told_apart).pvalue) if told_apart else 1.0)


def difference(
    scores_a: np.ndarray, scores_b: np.ndarray, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Mean of `scores_b` less that of `scores_a`, with its interval over images, of a paired bootstrap's percentiles.

    Scores (N,) in [0, 1]: right or not, or the share of several networks that are right. Images are drawn in pairs,
    which is to draw differences (Efron & Tibshirani 1993, doi:10.1201/9780429246593, ch. 13). Low and high are NaN
    where all images have the same difference, of which a bootstrap learns nothing.
    """
    differences = scores_b.astype(np.float64) - scores_a
    value = float(differences.mean())
    if np.ptp(differences) == 0:
        return Difference(value, np.nan, np.nan)
    interval = scipy.stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, VALUES_AT_A_TIME // len(differences)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(value, float(interval.low), float(interval.high))
