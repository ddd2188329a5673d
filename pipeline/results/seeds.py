"""Statistics over several seeds: mean and spread, the interval of a difference, and the detectable difference."""

import math
import warnings

import numpy as np
import pandas as pd
import scipy  # loads its statistics when they are first used, so that the start of a run does not wait for them

from pipeline.results.paired_tests import Difference

POWER, ALPHA = 0.8, 0.05
LARGEST_EFFECT = 1e5  # standard deviations; for two seeds per arm, the result is 10.4
SPREADS = 100_000  # number of random draws of the spread over seeds


def spread(table: pd.DataFrame) -> dict[str, float]:
    """The mean of each column under its name, and its standard deviation over seeds as `name`_sd. One row per seed."""
    means = {str(name): float(mean) for name, mean in table.mean().items()}
    return means | {f"{name}_sd": float(deviation) for name, deviation in table.std(ddof=1).items()}


def difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95) -> Difference:
    """Mean of `b` minus mean of `a`, and its interval over seeds (Welch 1947, doi:10.2307/2332510).

    Each needs at least two seeds. Low and high are NaN if all seeds of each have the same value: the spread is unknown.
    """
    value = float(b.mean() - a.mean())
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return Difference(value, math.nan, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # from scipy, if all seeds of one have the same value
        interval = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(confidence)
    return Difference(value, float(interval.low), float(interval.high))


def detectable(a: np.ndarray, b: np.ndarray, alpha: float = ALPHA) -> float:
    """The smallest true difference that Welch's two-sided test finds with probability 0.8, for as many seeds.

    Assumes that both have the pooled standard deviation of `a` and `b`. Each needs at least two seeds.
    """
    freedom = len(a) + len(b) - 2
    variance = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / freedom
    return effect_size(len(a), len(b), alpha) * math.sqrt(variance)


def effect_size(num_a: int, num_b: int, alpha: float = ALPHA) -> float:
    """The detectable difference in standard deviations, for `num_a` and `num_b` seeds."""
    draw = np.random.default_rng(0)
    a, b = (draw.chisquare(num - 1, SPREADS) / (num - 1) / num for num in (num_a, num_b))  # squared standard errors
    freedom = (a + b) ** 2 / (a**2 / (num_a - 1) + b**2 / (num_b - 1))
    least = scipy.stats.t.isf(alpha / 2, freedom) * np.sqrt(a + b)
    scale = math.sqrt(1 / num_a + 1 / num_b)
    # The other tail (a difference with the wrong sign) has far less than a thousandth of the probability.

    def missing(effect: float) -> float:
        return float(scipy.stats.norm.sf(least, effect, scale).mean()) - POWER

    return float(scipy.optimize.brentq(missing, 0, LARGEST_EFFECT))
