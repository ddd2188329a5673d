"""Compares two classifiers on the same images: McNemar's test, and the difference of their accuracies."""

from typing import NamedTuple

import numpy as np
import scipy  # loads its statistics when they are first used, so that the start of a run does not wait for them

RESAMPLES = 9999
VALUES_AT_A_TIME = 4_000_000  # of resamples in memory, 32 MB


class Mcnemar(NamedTuple):
    """The numbers of images that only one of two classifiers has right, and the p-value for equally good ones."""

    only_a: int
    only_b: int
    p_value: float


class Difference(NamedTuple):
    """The second value minus the first, and the ends of its interval; NaN if there is no interval."""

    value: float
    low: float
    high: float


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> Mcnemar:
    """McNemar's exact two-sided test on the correct images (N,) bool (McNemar 1947, doi:10.1007/BF02295996).

    `p_value` is 1 if both are right on the same images. Raises ValueError if the numbers of images differ.
    """
    if correct_a.shape != correct_b.shape:
        raise ValueError(f"{len(correct_a)} and {len(correct_b)} images are not the same images")
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    num_differing = only_a + only_b
    p_value = float(scipy.stats.binomtest(only_a, num_differing).pvalue) if num_differing else 1.0
    return Mcnemar(only_a, only_b, p_value)


def difference(
    scores_a: np.ndarray, scores_b: np.ndarray, confidence: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Mean of `scores_b` minus mean of `scores_a`, with its interval over images from a paired percentile bootstrap.

    Scores (N,) in [0, 1] say whether an image is right, or the share of networks that are right. Drawing images in
    pairs means drawing differences (Efron & Tibshirani 1993, doi:10.1201/9780429246593, ch. 13). Low and high are NaN
    if all images have the same difference, since a bootstrap then gives no interval.
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
