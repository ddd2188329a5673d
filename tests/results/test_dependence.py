"""Intervals over groups: equal to the matrix formula, honest about copies, and as usual for independent images."""

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from scipy.stats import t

from pipeline.results import dependence, metrics, paired_tests

SIZES = [1, 2, 3, 5, 8, 4]


def uneven():
    """Values and groups of uneven sizes, in random order."""
    draw = np.random.default_rng(0)
    groups = draw.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    return draw.normal(size=len(SIZES))[groups] + draw.normal(size=len(groups)), groups


def test_the_interval_of_a_mean_agrees_with_the_matrices_of_bell_and_mccaffrey():
    values, groups = uneven()
    number = len(values)
    residual_maker = np.eye(number) - np.full((number, number), 1 / number)
    residuals, columns, variance = residual_maker @ values, [], 0.0
    for group in range(len(SIZES)):
        rows = groups == group
        adjusted = fractional_matrix_power(residual_maker[np.ix_(rows, rows)], -0.5) @ np.ones(rows.sum()) / number
        variance += (adjusted @ residuals[rows]) ** 2
        columns.append(residual_maker[:, rows] @ adjusted)
    eigenvalues = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    half = t.isf(0.025, eigenvalues.sum() ** 2 / (eigenvalues**2).sum()) * np.sqrt(variance)
    found = dependence.mean(values, groups)
    assert found == pytest.approx((values.mean(), values.mean() - half, values.mean() + half))


def test_copies_of_an_image_count_once():
    right = np.random.default_rng(0).random(100) < 0.7
    found = dependence.share(np.repeat(right, 4), np.repeat(np.arange(100), 4))
    assert found.num_groups == 100
    assert found.effective == pytest.approx(99)  # the variance of 100 images has 99 degrees of freedom
    low, high = metrics.accuracy_interval(int(right.sum()), 100)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)


def test_the_effective_number_of_independent_images_is_near_their_number_and_never_above():
    draw = np.random.default_rng(0)
    right, groups = draw.random(2000) < 0.9, np.repeat(np.arange(500), 4)
    found = dependence.share(right, groups)
    assert 1700 < found.effective <= 2000
    low, high = metrics.accuracy_interval(int(right.sum()), 2000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.002)
    opposite = np.tile([True, False], 50)  # each group has one of either, which is no reason to be surer
    assert dependence.share(opposite, np.repeat(np.arange(50), 2)).effective == 100


def test_groups_that_all_agree_count_as_one_image_each_and_one_group_has_no_interval():
    groups = np.repeat(np.arange(10), 3)
    found = dependence.share(np.ones(30, dtype=bool), groups)
    assert found.effective == pytest.approx(10)
    assert 0.6 < found.low < 0.8 and found.high == 1
    assert dependence.share(np.ones(30, dtype=bool), np.zeros(30, dtype=int)) == (0, 1, 1, 1)
    assert np.isnan(dependence.mean(np.arange(3.0), np.zeros(3, dtype=int))).tolist() == [False, True, True]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 6), (3, 9), (30, 60), (0, 1), (0, 0)])
def test_flips_of_groups_of_one_image_are_mcnemar_s_test(only_a, only_b):
    a = np.repeat([True, False, True], [only_a, only_b, 5])
    b = np.repeat([False, True, True], [only_a, only_b, 5])
    p_value = dependence.sign_flips(b.astype(float) - a, np.arange(len(a)))
    assert p_value == pytest.approx(paired_tests.mcnemar(a, b).p_value, abs=0.002)
    together = dependence.sign_flips(np.repeat(b.astype(float) - a, 3), np.repeat(np.arange(len(a)), 3))
    assert together == p_value


def test_an_image_without_a_group_is_a_group_of_its_own():
    found = dependence.numbers(["fox", "", "owl", "fox", ""])
    assert found is not None and found.tolist() == [0, 1, 2, 0, 3]
    assert dependence.numbers(["", ""]) is None


def test_the_interval_contains_the_share_even_if_all_images_are_hits_or_none_is():
    draw = np.random.default_rng(0)
    for num_groups in range(2, 60):
        groups = np.repeat(np.arange(num_groups), draw.integers(1, 9, num_groups))
        for is_hit in (True, False):
            found = dependence.share(np.full(len(groups), is_hit), groups)
            assert 0 <= found.low <= is_hit <= found.high <= 1
