"""A learning curve: the error over the number of train images as a power law, and what more images would bring."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.results.dependence import Interval, of_resamples, resampled_means

# From nearly logarithmic to nearly at its limit. For each exponent, the best limit and scale have a closed form.
EXPONENTS = np.linspace(0.02, 2, 100)
RESAMPLES = 2000
LEAST_SIZES = 4  # three determine the law without the largest size, which is held back to check it


class Check(NamedTuple):
    """How well the curve of the smaller sizes predicts the accuracy at the largest one."""

    predicted: Interval
    measured: float
    difference: Interval  # measured minus predicted

    @property
    def holds(self) -> bool:
        """Whether the difference may be chance: its interval contains 0."""
        return self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class Size:
    """The trainings with one number of images."""

    images: int
    wrong: np.ndarray  # (S, N) bool, whether each training is wrong on each test image
    selections: int  # different choices of the train images among the S trainings


@dataclass(frozen=True)
class Curve:
    """Errors at K sizes, as measured (first row) and as resampled (the others), with a law for each row."""

    images: np.ndarray  # (K,) int64, rising
    errors: np.ndarray  # (1 + R, K) float64
    num_test: int

    def accuracy(self, images: float) -> Interval:
        """The accuracy that the law gives for this number of images."""
        return of_resamples(1 - self._error(self._laws(len(self.images)), images))

    def measured(self, place: int) -> Interval:
        """The mean accuracy of the trainings at size number `place`."""
        return of_resamples(1 - self.errors[:, place])

    def gain(self, start: float, end: float) -> Interval:
        """By how much the law lets the accuracy rise from `start` images to `end` images."""
        laws = self._laws(len(self.images))
        return of_resamples(self._error(laws, start) - self._error(laws, end))

    def check(self) -> Check:
        """The law of all sizes but the largest against the accuracy measured there."""
        predicted = self._error(self._laws(len(self.images) - 1), self.images[-1])
        reached = self.errors[:, -1]
        return Check(of_resamples(1 - predicted), float(1 - reached[0]), of_resamples(predicted - reached))

    def _laws(self, num_sizes: int) -> np.ndarray:
        """Limit, scale and exponent of each row, (1 + R, 3), from the first `num_sizes` sizes."""
        relative = self.images[:num_sizes] / self.images[-1]
        return fit(relative, self.errors[:, :num_sizes], _deviations(self.errors[0, :num_sizes], self.num_test))

    def _error(self, laws: np.ndarray, images: float) -> np.ndarray:
        limit, scale, exponent = laws.T
        return np.clip(limit + scale * (images / self.images[-1]) ** -exponent, 0, 1)


def measure(sizes: Sequence[Size], groups: np.ndarray | None = None, seed: int = 0) -> Curve:
    """The curve of `sizes`, in rising order, with resampled errors for the intervals.

    A resample draws the test images anew, the same for all trainings; with `groups` (N,) int64, whole groups. It also
    draws the deviations of trainings from the mean of their size. They are pooled over all sizes but the largest, where
    all trainings may have the same images, in units of sqrt(e (1 - e)) of the error e.
    """
    draw = np.random.default_rng(seed)
    num_test = sizes[0].wrong.shape[1]
    means = np.array([size.wrong.mean() for size in sizes])
    spreads = _deviations(means, num_test)
    pool = np.concatenate(
        [
            (size.wrong.mean(axis=1) - mean) / spread * np.sqrt(len(size.wrong) / (len(size.wrong) - 1))
            for size, mean, spread in zip(sizes[:-1], means, spreads, strict=False)
        ]
    )
    shares = np.stack([size.wrong.mean(axis=0) for size in sizes], axis=1)
    resampled = resampled_means(shares, groups, draw, RESAMPLES)
    for place, (size, spread) in enumerate(zip(sizes, spreads, strict=True)):
        resampled[:, place] += draw.choice(pool, (RESAMPLES, size.selections)).mean(axis=1) * spread
    errors = np.concatenate([means[None], np.clip(resampled, 0, 1)])
    return Curve(np.array([size.images for size in sizes]), errors, num_test)


def fit(sizes: np.ndarray, errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Limit, scale >= 0 and exponent, (R, 3), of the law error = limit + scale * size ** -exponent for each row.

    sizes: (K,) above 0. errors: (R, K). deviations: (K,), by which the errors are weighed in the least squares. The
    limit may be negative: held above 0, intervals are too narrow if the true limit is 0 (docs/honesty.md). Source of
    the law: Hestness et al. 2017, arXiv:1712.00409.
    """
    powers = sizes[None] ** -EXPONENTS[:, None]  # (G, K)
    weights = deviations**-2
    of_powers, of_squares, total = powers @ weights, powers**2 @ weights, weights.sum()
    of_errors, crossed = (errors @ weights)[:, None], (errors * weights) @ powers.T  # (R, 1) and (R, G)
    scale = np.maximum(0, (total * crossed - of_powers * of_errors) / (total * of_squares - of_powers**2))
    limit = (of_errors - scale * of_powers) / total
    loss = scale**2 * of_squares + 2 * scale * (limit * of_powers - crossed) + limit**2 * total - 2 * limit * of_errors
    best = loss.argmin(axis=1)
    rows = np.arange(len(errors))
    return np.stack([limit[rows, best], scale[rows, best], EXPONENTS[best]], axis=1)


def _deviations(errors: np.ndarray, num_test: int) -> np.ndarray:
    """sqrt(e (1 - e)) of each error; as for half an image where no image, or each, is wrong."""
    kept = np.clip(errors, 0.5 / num_test, 1 - 0.5 / num_test)
    return np.sqrt(kept * (1 - kept))
