"""A power law is found, its intervals contain the truth, and a curve that follows no law is noticed."""

import numpy as np
import pytest

from pipeline.results import learning_curve
from pipeline.results.learning_curve import Size


def law(images, limit=0.02, scale=0.1, exponent=0.5):
    return limit + scale * (np.asarray(images) / 100) ** -exponent


def trainings(images, errors, seed=0, number=3, num_test=300):
    """Sizes whose trainings are wrong on random test images, the same hard ones for all; their errors also vary."""
    draw = np.random.default_rng(seed)
    hardness = draw.random(num_test)
    sizes = []
    for count, error in zip(images, errors, strict=True):
        reached = error * (1 + 0.05 * draw.normal(size=(number, 1)))
        blurred = np.clip(hardness + 0.02 * draw.normal(size=(number, num_test)), 0, 1)
        sizes.append(Size(count, blurred < reached, number))
    return sizes


def test_a_power_law_is_found_in_errors_that_follow_one():
    images = np.array([100, 200, 400, 800, 1600])
    (found,) = learning_curve.fit(images / 1600, law(images)[None], np.ones(5))
    limit, scale, exponent = found
    assert (limit, exponent) == pytest.approx((0.02, 0.5), abs=2e-3)
    assert scale == pytest.approx(law(1600) - 0.02, abs=2e-3)
    (flat,) = learning_curve.fit(images / 1600, np.array([[0.1, 0.12, 0.1, 0.12, 0.13]]), np.ones(5))
    assert flat[1] == 0  # errors that rise make no promise


def test_intervals_contain_the_true_gain_of_more_images():
    images = [100, 200, 400, 800, 1600]
    true = law(1600) - law(3200)
    held, checked = [], []
    for seed in range(20):
        curve = learning_curve.measure(trainings(images, law(images), seed), seed=seed)
        _, low, high = curve.gain(1600, 3200)
        held.append(low <= true <= high)
        checked.append(curve.check().holds)
    assert np.mean(held) >= 0.9 and np.mean(checked) >= 0.85
    assert curve.accuracy(1600).value == pytest.approx(1 - law(1600), abs=0.03)


def test_a_curve_that_stops_following_the_law_fails_its_check():
    images = [100, 200, 400, 800, 1600]
    errors = [*law(images[:-1]), 0.15]  # twice the images, and worse than with half of them
    check = learning_curve.measure(trainings(images, errors)).check()
    assert not check.holds and check.difference.high < 0
    assert check.measured == pytest.approx(0.85, abs=0.04) and check.predicted.value > 0.91


def test_groups_of_alike_images_widen_the_intervals():
    images = [100, 200, 400, 800]
    sizes = [
        Size(each.images, each.wrong.repeat(8, axis=1), 3) for each in trainings(images, law(images), num_test=100)
    ]
    alone = learning_curve.measure(sizes).measured(0)
    together = learning_curve.measure(sizes, np.arange(100).repeat(8)).measured(0)
    assert together.value == alone.value
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
