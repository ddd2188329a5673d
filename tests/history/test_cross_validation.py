"""Cross-validations are compared only on the same folds of the same images."""

import numpy as np
import pandas as pd
import pytest

from pipeline.history.cross_validation import CrossValidation, check_same_folds
from pipeline.history.evaluation import Evaluation
from pipeline.params import TrainParams


def fold(names, digest="d", classes="ab", **params):
    table = pd.DataFrame({"name": names, "true": (2 * [*classes])[: len(names)], "predicted": "a"})
    return Evaluation("e", "t", TrainParams(**params), "best", {}, digest, {}, table, pd.DataFrame())


GOOD = CrossValidation("first", [fold(["1", "2"]), fold(["3", "4"])])


def test_the_same_folds_may_have_another_order_or_another_size_of_the_images():
    check_same_folds(GOOD, CrossValidation("other", [fold(["2", "1"], classes="ba"), fold(["3", "4"])]))
    larger = [fold(names, "e", image_size=64) for names in (["1", "2"], ["3", "4"])]
    check_same_folds(GOOD, CrossValidation("other", larger))
    assert np.array_equal(GOOD.accuracies, [0.5, 0.5])


@pytest.mark.parametrize(
    ("folds", "reason"),
    [
        ([fold(["1", "2", "3"]), fold(["4"]), fold(["5"])], "have folds=2 and folds=3"),
        ([fold(["1", "3"]), fold(["2", "4"])], "different images or labels in fold 1"),
        ([fold(["1", "2"]), fold(["3", "4"], classes="bb")], "different images or labels in fold 2"),
        ([fold(["1", "2"]), fold(["3", "4"], "e")], "the same names with other pixels in fold 2"),
    ],
)
def test_other_folds_are_refused_with_a_reason(folds, reason):
    with pytest.raises(ValueError, match=reason):
        check_same_folds(GOOD, CrossValidation("other", folds))
