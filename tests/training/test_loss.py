"""Weights of classes in the loss."""

import numpy as np
import pytest

from pipeline.training import loss

LABELS = np.repeat([0, 1, 2], [1, 10, 5000])


def test_balanced_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert loss.class_weights(LABELS, 3, "balanced") == pytest.approx(expected)


def test_effective_class_weights_have_the_ratios_of_the_paper():
    weights = loss.class_weights(LABELS, 3, "effective")
    # 1 - 0.999^1 = 0.001, 1 - 0.999^10 = 0.00995512, 1 - 0.999^5000 = 0.99327999
    assert weights[0] / weights[1] == pytest.approx(0.00995512 / 0.001, rel=1e-5)
    assert weights[1] / weights[2] == pytest.approx(0.99327999 / 0.00995512, rel=1e-5)


@pytest.mark.parametrize("rule", loss.RULES)
def test_the_mean_weight_over_the_images_is_1(rule):
    assert loss.class_weights(LABELS, 3, rule)[LABELS].mean() == pytest.approx(1, rel=1e-5)
