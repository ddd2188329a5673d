"""Intervals for images that are not independent, because images of one group, such as one animal, are alike."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # loads its statistics when they are first used, so that the start of a run does not wait for them

from pipeline.results.paired_tests import Difference

RESAMPLES = 9999


class Share(NamedTuple):
    """The ends of the interval of a share, and how many groups and how many independent images it rests on."""

    low: float
    high: float
    num_groups: int
    effective: float  # number of independent images that would give an interval as wide; at most the number of images


class Interval(NamedTuple):
    """A number with the ends of its 95 % interval. All are NaN if the number is not known."""

    value: float
    low: float
    high: float

    def metrics(self, name: str) -> dict[str, float]:
        """The number as the metric `name`, and the ends as `name`_low and `name`_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


class _Mean(NamedTuple):
    """A mean with its squared standard error, and the degrees of freedom of that; NaN for a single group."""

    value: float
    variance: float
    freedom: float


def numbers(names: Sequence[str]) -> np.ndarray | None:
    """The group of each image as a number, (N,) int64. An image without a name is a group of its own.

    None if no image has a group, so that all are independent.
    """
    if not any(names):
        return None
    keys = [(1, name) if name else (0, place) for place, name in enumerate(names)]
    found = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([found[key] for key in keys], dtype=np.int64)


def share(hits: np.ndarray, groups: np.ndarray, confidence: float = 0.95) -> Share:
    """The interval of the share of `hits` (N,) bool, such as an accuracy, over `groups` (N,) int64.

    It is the Wilson interval for the effective number of images, with the quantile of Student's t (Dean & Pagano 2015,
    doi:10.1093/jssam/smv024). The number is N over the design effect (Kish 1965). It is (0, 1) for a single group.
    """
    num_images, sizes = len(hits), np.unique_counts(groups).counts
    if len(sizes) < 2:
        return Share(0.0, 1.0, len(sizes), float(min(num_images, 1)))
    value, variance, freedom = _mean(hits.astype(np.float64), groups)
    spread = value * (1 - value)
    if spread:
        effective = min(float(num_images), spread / variance) if variance else float(num_images)
    else:  # all images are hits or none is, so nothing shows how alike they are: they may be copies of each other
        effective = float(num_images**2 / (sizes**2).sum())
    z = float(scipy.stats.t.isf((1 - confidence) / 2, freedom))
    centre = value + z**2 / (2 * effective)
    half = z * math.sqrt(value * (1 - value) / effective + z**2 / (4 * effective**2))
    low, high = ((centre + side * half) / (1 + z**2 / effective) for side in (-1, 1))
    # Rounding may put an end of 1 a little below 1, and so below the share itself. Matplotlib refuses such an interval.
    return Share(max(0.0, min(low, value)), min(1.0, max(high, value)), len(sizes), effective)


def mean(values: np.ndarray, groups: np.ndarray, confidence: float = 0.95) -> Difference:
    """The mean of `values` (N,), such as differences of two networks, with its interval over `groups` (N,) int64.

    The standard error is CR2, with Satterthwaite's degrees of freedom (Bell & McCaffrey 2002, Survey Methodology 28,
    169-181). Low and high are NaN if there is one group, or if all groups have the same mean.
    """
    value, variance, freedom = _mean(values.astype(np.float64), groups)
    if not variance > 0:
        return Difference(value, math.nan, math.nan)
    half = float(scipy.stats.t.isf((1 - confidence) / 2, freedom)) * math.sqrt(variance)
    return Difference(value, value - half, value + half)


def resampled_means(
    values: np.ndarray, groups: np.ndarray | None, draw: np.random.Generator, resamples: int
) -> np.ndarray:
    """The means of the columns of `values` (N, K) over images drawn anew, `resamples` times: (resamples, K).

    With `groups` (N,) int64, whole groups are drawn.
    """
    units = np.arange(len(values)) if groups is None else np.unique_inverse(groups).inverse_indices
    sizes = np.bincount(units)
    sums = np.stack([np.bincount(units, column) for column in values.T.astype(np.float64)], axis=1)
    shares = np.full(len(sizes), 1 / len(sizes))
    # One after the other, because the counts of all resamples together may not fit into memory.
    counts = (draw.multinomial(len(sizes), shares) for _ in range(resamples))
    return np.stack([each @ sums / (each @ sizes) for each in counts])


def of_resamples(values: np.ndarray) -> Interval:
    """The first of `values`, with the 95 % interval of the others, which come from resamples. NaNs do not count."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(drawn):
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))


def sign_flips(differences: np.ndarray, groups: np.ndarray) -> float:
    """The two-sided p-value for two equally good networks, from `differences` (N,) of each image and its group.

    If both are equally good, the sum of the differences of a group has either sign with equal probability. With an
    image per group, this is McNemar's exact test. The p-value is exact for at most 13 groups whose sum is not 0. For
    more, it comes from 9999 random flips.
    """
    sums = np.bincount(groups, differences.astype(np.float64))
    sums = sums[sums != 0]
    if len(sums) < 2:  # scipy wants two values; one group alone shows nothing
        return 1.0
    test = scipy.stats.permutation_test(
        (sums,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def _mean(values: np.ndarray, groups: np.ndarray) -> _Mean:
    """The CR2 variance of a mean, in the closed form that it has for a model with a constant alone."""
    value = float(values.mean())
    counts = np.unique_inverse(groups)
    sizes, residuals = np.bincount(counts.inverse_indices), np.bincount(counts.inverse_indices, values - value)
    if len(sizes) < 2:
        return _Mean(value, math.nan, math.nan)
    num_images = len(values)
    inflation = 1 / (1 - sizes / num_images)
    variance = float((inflation * residuals**2).sum()) / num_images**2
    squares = inflation * sizes**2.0
    across = (squares.sum() ** 2 - (squares**2).sum()) / num_images**2
    freedom = num_images**2 / float((sizes**2.0).sum() + across)
    return _Mean(value, variance if variance > np.finfo(float).eps else 0.0, freedom)
