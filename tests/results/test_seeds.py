"""The spread over seeds, and the difference between two recipes that it allows to find."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind

from pipeline.results import seeds


@pytest.mark.parametrize(("num", "effect"), [(26, 0.8), (64, 0.5), (17, 1.0)])
def test_the_detectable_effect_agrees_with_cohen(num, effect):
    """Cohen 1992, doi:10.1037/0033-2909.112.1.155, table 2: n for power 0.8 at 0.05, rounded up.

    With so many seeds, Welch's test agrees with Student's.
    """
    assert seeds.effect_size(num, num) <= effect <= seeds.effect_size(num - 1, num - 1)


@pytest.mark.parametrize("nums", [(2, 2), (3, 3), (2, 5)])
def test_a_detectable_difference_is_found_in_80_percent_of_trials(nums):
    draw = np.random.default_rng(1)
    a, b = (draw.normal(mean, 1, (4000, num)) for mean, num in zip((0, seeds.effect_size(*nums)), nums, strict=True))
    assert (ttest_ind(a, b, axis=1, equal_var=False).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_the_detectable_difference_is_in_units_of_the_seeds_spread():
    a, b = np.array([0.90, 0.92, 0.94]), np.array([0.80, 0.82, 0.84])
    assert seeds.detectable(a, b) == pytest.approx(0.02 * seeds.effect_size(3, 3))
    assert seeds.detectable(a, b, alpha=0.01) > seeds.detectable(a, b)


def test_the_interval_of_a_difference_is_welchs():
    a, b = np.array([0.90, 0.92, 0.94]), np.array([0.80, 0.85])
    found = seeds.difference(a, b)
    assert found.value == pytest.approx(-0.095)
    variances = 0.02**2 / 3, 0.035355339**2 / 2
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 2 + variances[1] ** 2)
    assert found.high - found.low == pytest.approx(2 * t_critical(freedom) * math.sqrt(sum(variances)))
    assert (found.low + found.high) / 2 == pytest.approx(found.value)


def t_critical(freedom):
    from scipy.stats import t

    return t.isf(0.025, freedom)


def test_seeds_with_equal_results_have_no_interval():
    assert np.isnan(seeds.difference(np.array([0.9, 0.9]), np.array([0.8, 0.8]))[1:]).all()


def test_spread_is_mean_and_deviation_by_name():
    found = seeds.spread(pd.DataFrame({"test/accuracy": [0.9, 0.92]}))
    assert found == {"test/accuracy": pytest.approx(0.91), "test/accuracy_sd": pytest.approx(0.02 / math.sqrt(2))}
