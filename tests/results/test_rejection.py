"""Sure answers: errors over coverage, and the threshold for a wanted error."""

import numpy as np
import pytest

from pipeline.results import rejection
from pipeline.results.rejection import Outcomes

FIVE = Outcomes(np.array([0.9, 0.6, 0.8, 0.7, 0.95]), np.array([True, False, True, False, True]))


def calibrated(num_images, seed):
    """Outcomes that are right as often as their confidence says."""
    draw = np.random.default_rng(seed)
    confidence = 0.5 + 0.5 * draw.beta(4, 0.6, num_images)
    return Outcomes(confidence, draw.random(num_images) < confidence)


def test_the_curve_of_five_images_is_as_counted_by_hand():
    curve = FIVE.curve()
    assert curve["threshold"].tolist() == [0.95, 0.9, 0.8, 0.7, 0.6]
    assert curve["coverage"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve["error"].tolist() == pytest.approx([0, 0, 0, 1 / 4, 2 / 5])
    assert (curve["error_low"] <= curve["error"]).all() and (curve["error"] <= curve["error_high"]).all()
    assert FIVE.area() == pytest.approx((1 / 4 + 2 / 5) / 5)


@pytest.mark.parametrize(
    ("most_error", "threshold", "coverage", "error"),
    [(0.02, 0.8, 0.6, 0.0), (0.3, 0.7, 0.8, 0.25), (0.5, 0.6, 1.0, 0.4)],
)
def test_the_threshold_answers_as_many_as_the_wanted_error_allows(most_error, threshold, coverage, error):
    assert FIVE.threshold(most_error) == threshold
    numbers = FIVE.numbers(threshold)
    assert (numbers["coverage"], numbers["error"]) == pytest.approx((coverage, error))
    assert numbers["error_low"] <= error <= numbers["error_high"]


def test_without_a_sure_answer_nothing_is_answered():
    wrong = Outcomes(np.array([0.9, 0.8]), np.array([False, True]))
    assert wrong.threshold(0.02) == np.inf
    assert wrong.numbers(np.inf) == {"coverage": 0.0}


def test_equally_confident_images_are_answered_together():
    equal = Outcomes(np.full(4, 0.7), np.array([True, True, True, False]))
    assert equal.threshold(0.02) == np.inf and equal.threshold(0.25) == 0.7
    assert len(equal.curve()) == 1 and equal.area() == 0.25


def test_the_wanted_error_holds_on_new_images():
    validation, test = calibrated(4000, seed=0), calibrated(100_000, seed=1)
    numbers = test.numbers(validation.threshold(0.02))
    assert 0.015 < numbers["error"] < 0.025
    assert 0.5 < numbers["coverage"] < 0.8
    assert len(test.curve()) == rejection.CURVE_POINTS
