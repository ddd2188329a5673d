"""Thresholds keep the wanted recall on new images, also if few images chose them."""

import numpy as np
import pytest

from pipeline.results import operating_points
from pipeline.results.operating_points import Answers


def answers(draw, per_class):
    """Probabilities of three classes. The first class is hard."""
    labels = np.repeat(np.arange(3), per_class)
    logits = draw.normal(size=(len(labels), 3))
    logits[np.arange(len(labels)), labels] += np.array([1.0, 3.0, 3.0])[labels]
    return Answers(labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("per_class", "recall"), [(9, 0.9), (19, 0.8), (200, 0.95)])
def test_recall_on_new_images_is_the_wanted_one_over_repeated_splits(per_class, recall):
    draw = np.random.default_rng(0)
    new = answers(draw, 2000)
    reached = []
    for _ in range(300):
        cuts = operating_points.thresholds(answers(draw, per_class), recall)
        found = operating_points.table(new, cuts, np.full(3, per_class), "abc")
        reached.append(found["recall"])
    expected = 1 - np.floor((per_class + 1) * (1 - recall) + 1e-9) / (per_class + 1)
    assert expected >= recall - 1e-9
    assert np.mean(reached, axis=0) == pytest.approx(np.full(3, expected), abs=0.012)


def test_a_class_with_too_few_images_is_always_reported():
    few = answers(np.random.default_rng(0), 8)
    assert (operating_points.thresholds(few, 0.9) == 0).all()
    assert (operating_points.thresholds(few, 0.8) > 0).all()
    none_of_a = Answers(few.labels[8:], few.probabilities[8:])
    assert operating_points.thresholds(none_of_a, 0.8)[0] == 0
    numbers = operating_points.numbers(few, np.zeros(3))
    assert numbers["test/threshold_coverage"] == 1 and numbers["test/threshold_classes"] == 3


def test_recall_and_precision_are_those_of_the_reported_images():
    test = Answers(np.array([0, 0, 1, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2], [0.1, 0.9]]))
    cuts = np.array([0.5, 0.65])
    table = operating_points.table(test, cuts, np.array([7, 8]), ["a", "b"], groups=np.arange(5))
    assert table["reported"].tolist() == [2, 2] and table["valid_images"].tolist() == [7, 8]
    assert table["recall"].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert table["precision"].tolist() == pytest.approx([1 / 2, 1])
    assert ((table["recall_low"] <= table["recall"]) & (table["recall"] <= table["recall_high"])).all()
    numbers = operating_points.numbers(test, cuts)
    assert numbers["test/threshold_coverage"] == pytest.approx(3 / 5) and numbers[
        "test/threshold_classes"
    ] == pytest.approx(4 / 5)
    nothing = operating_points.table(test, np.array([1.0, 1.0]), np.array([7, 8]), ["a", "b"])
    assert nothing["precision"].isna().all() and (nothing["recall"] == 0).all()
