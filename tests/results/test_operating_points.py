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
        cuts = operating_points.for_recall(valid := answers(draw, per_class), recall)
        found = operating_points.table(new, valid, cuts, "abc")
        reached.append(found["recall"])
    expected = 1 - np.floor((per_class + 1) * (1 - recall) + 1e-9) / (per_class + 1)
    assert expected >= recall - 1e-9
    assert np.mean(reached, axis=0) == pytest.approx(np.full(3, expected), abs=0.012)


def test_a_class_with_too_few_images_is_always_reported():
    few = answers(np.random.default_rng(0), 8)
    assert (operating_points.for_recall(few, 0.9) == 0).all()
    assert (operating_points.for_recall(few, 0.8) > 0).all()
    none_of_a = Answers(few.labels[8:], few.probabilities[8:])
    assert operating_points.for_recall(none_of_a, 0.8)[0] == 0
    numbers = operating_points.numbers(few, np.zeros(3))
    assert numbers["test/threshold_coverage"] == 1 and numbers["test/threshold_classes"] == 3


def test_recall_and_precision_are_those_of_the_reported_images():
    test = Answers(np.array([0, 0, 1, 1, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2], [0.1, 0.9]]))
    cuts = np.array([0.5, 0.65])
    table = operating_points.table(test, test, cuts, ["a", "b"], groups=np.arange(5))
    assert table["reported"].tolist() == [2, 2] and table["valid_images"].tolist() == [2, 3]
    assert table["recall"].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert table["precision"].tolist() == pytest.approx([1 / 2, 1])
    assert ((table["recall_low"] <= table["recall"]) & (table["recall"] <= table["recall_high"])).all()
    numbers = operating_points.numbers(test, cuts)
    assert numbers["test/threshold_coverage"] == pytest.approx(3 / 5) and numbers[
        "test/threshold_classes"
    ] == pytest.approx(4 / 5)
    nothing = operating_points.table(test, test, np.array([1.0, np.nan]), ["a", "b"])
    assert nothing["precision"].isna().all() and (nothing["recall"] == 0).all()


def test_the_threshold_for_a_precision_is_the_lowest_that_reaches_it_on_validation():
    scores = np.array([0.95, 0.9, 0.8, 0.8, 0.7, 0.6, 0.3])
    valid = Answers(np.array([0, 0, 0, 1, 0, 1, 1]), np.stack([scores, 1 - scores], axis=1))
    for precision, first, second in ((0.8, 0.7, 0.4), (0.66, 0.6, 0.3), (0.9, 0.9, 0.4), (0.5, 0.3, 0.1)):
        assert operating_points.for_precision(valid, precision) == pytest.approx([first, second])
    never = Answers(np.zeros(7, dtype=np.int64), valid.probabilities)
    assert np.isnan(operating_points.for_precision(never, 0.5)[1])
    draw = np.random.default_rng(0)
    new, reached = answers(draw, 2000), []
    for _ in range(100):
        few = answers(draw, 300)
        cuts = operating_points.for_precision(few, 0.9)
        found = operating_points.table(new, few, cuts, "abc")
        chosen = (few.labels[:, None] == np.arange(3)) & (few.probabilities >= cuts)
        assert (chosen.sum(axis=0) >= 0.9 * found["valid_reported"] - 1e-6).all()
        reached.append(found["precision"])
    assert np.nanmean(reached) == pytest.approx(0.9, abs=0.012)
