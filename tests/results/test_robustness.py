"""Accuracy on spoiled images, and the corruption error against a reference, by hand."""

import numpy as np
import pytest

from pipeline.results import robustness
from pipeline.results.robustness import Answers

NAMES, STRENGTHS = ["noise", "blur"], np.array([[0.1, 0.2], [1, 2]])


def answers(clean, *errors, num_images=100):
    """Answers that are wrong on the first images. The numbers say on how many: clean, and for each severity."""
    places = np.arange(num_images)
    return Answers(places < clean, np.array([[places < each for each in of_kind] for of_kind in errors]))


def test_means_and_the_corruption_error_are_those_of_the_paper():
    own, other = answers(5, (10, 30), (20, 20)), answers(5, (20, 60), (10, 40))
    found = robustness.summarise(own, other)
    assert found.accuracy.value == pytest.approx(0.8) and found.lost.value == pytest.approx(0.15)
    assert [each.value for each in found.accuracies] == pytest.approx([0.8, 0.8])
    assert [each.value for each in found.corruption_errors] == pytest.approx([40 / 80, 40 / 50])
    assert found.mean_corruption_error.value == pytest.approx((0.5 + 0.8) / 2)
    assert found.mean_corruption_error.low < 0.65 < found.mean_corruption_error.high
    same = robustness.summarise(own, own).mean_corruption_error
    assert same == (1, 1, 1)  # the same images are drawn for both


def test_a_reference_without_errors_gives_no_corruption_error():
    found = robustness.summarise(answers(5, (10, 30), (20, 20)), answers(0, (0, 0), (10, 40)))
    noise, blur = (each.value for each in found.corruption_errors)
    assert np.isnan(noise) and blur == pytest.approx(0.8)
    assert found.mean_corruption_error.value == pytest.approx(0.8)
    assert (
        robustness.summarise(answers(5, (10, 30), (20, 20)), answers(0, (0, 0), (0, 0))).mean_corruption_error is None
    )


def test_the_table_has_clean_images_first_and_groups_widen_its_intervals():
    own = answers(48, (96, 192), (48, 48), num_images=480)
    table = robustness.table(own, NAMES, STRENGTHS)
    assert table["corruption"].tolist() == ["none", "noise", "noise", "blur", "blur"]
    assert table["severity"].tolist() == [0, 1, 2, 1, 2] and table["strength"].tolist()[1:] == [0.1, 0.2, 1, 2]
    assert table["accuracy"].tolist() == pytest.approx([0.9, 0.8, 0.6, 0.9, 0.9])
    grouped = robustness.table(own, NAMES, STRENGTHS, np.arange(480) // 24)
    assert ((grouped["high"] - grouped["low"]) > 1.5 * (table["high"] - table["low"])).all()
    by_group = robustness.summarise(own, groups=np.arange(480) // 24).accuracy
    by_image = robustness.summarise(own).accuracy
    assert by_group.value == by_image.value and by_group.high - by_group.low > 1.5 * (by_image.high - by_image.low)
