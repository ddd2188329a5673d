"""Paired tests of two classifiers on the same images."""

import numpy as np
import pytest

from pipeline.results import paired_tests


def rights(both, only_a, only_b, neither):
    """Two arrays (N,) bool, with these numbers of images right in both, only one of them, and neither."""
    counts = [both, only_a, only_b, neither]
    a, b = np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)
    return a, b


def test_mcnemar_is_the_exact_test_of_the_images_they_disagree_on():
    # 2 * (C(10,0) + C(10,1)) / 2^10 for 1 against 9.
    assert paired_tests.mcnemar(*rights(50, 1, 9, 40)) == (1, 9, pytest.approx(22 / 1024))
    assert paired_tests.mcnemar(*rights(0, 9, 1, 0)) == (9, 1, pytest.approx(22 / 1024))
    assert paired_tests.mcnemar(*rights(0, 5, 5, 0)).p_value == 1


def test_mcnemar_gives_p_1_if_both_are_right_on_the_same_images():
    assert paired_tests.mcnemar(*rights(5, 0, 0, 5)) == (0, 0, 1.0)


def test_mcnemar_refuses_different_numbers_of_images():
    with pytest.raises(ValueError, match="3 and 2 images"):
        paired_tests.mcnemar(np.ones(3, bool), np.ones(2, bool))


def test_the_interval_of_a_difference_is_for_paired_images():
    a, b = rights(800, 30, 60, 110)
    found = paired_tests.difference(a, b)
    assert found.value == pytest.approx(0.03)
    # For paired images, the variance of the difference is (0.09 - 0.03²) / 1000.
    half = 1.96 * np.sqrt((0.09 - 0.03**2) / 1000)
    assert found.low == pytest.approx(0.03 - half, abs=0.0015)
    assert found.high == pytest.approx(0.03 + half, abs=0.0015)
    wider = paired_tests.difference(a, b, confidence=0.99)
    assert wider.low < found.low < found.high < wider.high
    assert paired_tests.difference(a, b) == found


def test_two_equal_classifiers_have_no_interval():
    a, _ = rights(5, 3, 0, 2)
    assert np.isnan(paired_tests.difference(a, a)[1:]).all()
    assert np.isnan(paired_tests.difference(a[:1], ~a[:1])[1:]).all()


def test_the_interval_contains_the_true_difference_as_often_as_stated():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        a, b = draw.random(150) < 0.8, draw.random(150) < 0.85
        low, high = paired_tests.difference(a, b, resamples=400)[1:]
        held += low <= 0.05 <= high
    assert 180 <= held <= 199
