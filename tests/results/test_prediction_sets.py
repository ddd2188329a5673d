"""Sets of classes hold the class of new images as often as promised, also if few images chose them."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from pipeline.results import prediction_sets


def answers(draw, num_images, num_classes=5, sharpness=1.0):
    """Labels (N,), and probabilities (N, C) that are right in proportion to their size if `sharpness` is 1."""
    probabilities = softmax(draw.normal(size=(num_images, num_classes)) * 1.5, axis=1)
    labels = (draw.random((num_images, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return labels, softmax(sharpness * np.log(probabilities), axis=1)


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
@pytest.mark.parametrize(("num_valid", "coverage"), [(9, 0.9), (40, 0.8), (200, 0.95)])
def test_sets_contain_the_class_of_new_images_as_often_as_wanted_over_repeated_splits(num_valid, coverage, sharpness):
    draw = np.random.default_rng(0)
    labels, new = answers(draw, 4000, sharpness=sharpness)
    reached, sizes = [], []
    for _ in range(300):
        own, valid = answers(draw, num_valid, sharpness=sharpness)
        sets = prediction_sets.fit(valid[np.arange(num_valid), own], coverage)
        inside = sets.inside(new)
        assert sets.is_known and inside.any(axis=1).all()
        numbers = prediction_sets.numbers(inside, labels)
        reached.append(numbers["test/set_coverage"])
        sizes.append(numbers["test/set_size"])
    assert coverage - 0.012 <= np.mean(reached) <= coverage + 1 / (num_valid + 1) + 0.012
    assert 1 < np.mean(sizes) < 5


def test_too_few_validation_images_are_named_in_one_line():
    for coverage, least in ((0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)):
        assert prediction_sets.needed(coverage) == least
        few, enough = (prediction_sets.fit(np.linspace(0.2, 0.9, number), coverage) for number in (least - 1, least))
        assert few.threshold == 0 and not few.is_known
        assert prediction_sets.lack(few).endswith(f"needs {least} validation images, and there are {least - 1}")
        assert enough.threshold == 0.2
        assert enough.is_known and prediction_sets.lack(enough) == ""
        assert few.covering(0.3).is_known == (least > 1)
    assert "of an earlier version" in prediction_sets.lack(None)


def test_tables_texts_and_numbers_describe_the_same_sets():
    sets = prediction_sets.fit(np.array([0.3, 0.5, 0.9, 0.95]), 0.8)
    given = np.array([[0.4, 0.5, 0.1], [0.29, 0.21, 0.28], [0.1, 0.1, 0.8], [0.3, 0.35, 0.35]])
    labels, groups = np.array([0, 1, 2, 1]), np.array([0, 0, 1, 2])
    inside = sets.inside(given)
    assert sets.threshold == 0.3
    assert inside.tolist() == [[True, True, False], [True, False, False], [False, False, True], [True, True, True]]
    texts = prediction_sets.as_texts(inside, given, ["a", "b", 'c, "d"'])
    assert texts[0] == '["b", "a"]' and json.loads(texts[2]) == ['c, "d"']
    by_class = prediction_sets.by_class(inside, labels, "abc", groups)
    assert by_class["coverage"].tolist() == [1, 0.5, 1] and by_class["set_size"].tolist() == [2, 2, 1]
    by_size = prediction_sets.by_size(inside, labels)
    assert by_size["images"].tolist() == [2, 1, 1] and by_size["coverage"].tolist() == [0.5, 1, 1]
    numbers = prediction_sets.numbers(inside, labels, groups)
    assert numbers["test/set_coverage"] == 0.75 and numbers["test/single_sets"] == 0.5
    assert numbers["test/set_coverage_over_groups_low"] < 0.75 < numbers["test/set_coverage_over_groups_high"]
