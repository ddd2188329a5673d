"""The mean over folds of a cross-validation, its interval, and the verdict on two of them."""

import numpy as np
import pytest
from scipy.stats import t

from pipeline.results import folds


def test_the_error_over_folds_counts_the_images_that_trainings_share():
    values = np.array([0.8, 0.9, 0.85, 0.95, 0.7])
    found = folds.mean(values)
    naive = values.std(ddof=1) / np.sqrt(5)
    assert found.value == pytest.approx(0.84)
    assert found.standard_error == pytest.approx(naive * np.sqrt(1 + 5 / 4))  # Nadeau and Bengio, equation 6
    assert found.high - found.value == found.value - found.low == pytest.approx(t.isf(0.025, 4) * found.standard_error)


def test_the_interval_of_an_accuracy_ends_at_one():
    found = folds.mean_accuracy(np.array([1.0, 0.9375, 1.0, 0.9375, 0.9375]))
    assert found.low < found.value < found.high == 1


def test_the_verdict_of_two_cross_validations_needs_an_interval_without_zero():
    for values, end in (
        ([0.02, 0.03, 0.025, 0.03, 0.02], "B is better"),
        ([-0.02, -0.03, -0.025, -0.03, -0.02], "A is better"),
        ([0.02, -0.03, 0.05, 0.0, 0.01], "these folds show no difference between the two"),
        ([0.02, 0.02, 0.02], "these folds show no difference between the two"),
    ):
        assert folds.verdict(folds.mean(np.array(values)), "A", "B") == end
    equal = folds.mean(np.array([0.02, 0.02, 0.02]))
    assert folds.in_words(equal, 0.05) == "all folds have the same difference, so there is no interval over folds"
