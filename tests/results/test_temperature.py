"""The temperature that calibrates probabilities has the lowest loss."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from pipeline.results import metrics, temperature


def answers(sharpness, num_images=2000, num_classes=5, seed=0):
    """(logits, labels): labels drawn from the logits' probabilities, and the logits multiplied by `sharpness`."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(num_images, num_classes)) * 2
    labels = np.array([draw.choice(num_classes, p=p) for p in softmax(logits, axis=1)])
    return (sharpness * logits).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.3, 1, 4])
def test_no_other_temperature_has_a_lower_loss(sharpness):
    logits, labels = answers(sharpness)
    fitted = temperature.fit(logits, labels)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 3001))
    exact = logits.astype(float)
    losses = [-log_softmax(exact / each, axis=1)[np.arange(len(labels)), labels].mean() for each in grid]
    assert fitted.value == pytest.approx(grid[np.argmin(losses)], rel=2e-3)
    assert fitted.nll_after <= min(losses) + 1e-9
    assert fitted.value == pytest.approx(sharpness, rel=0.1)


def test_the_numbers_of_a_temperature_agree_with_the_metrics():
    logits, labels = answers(4)
    fitted = temperature.fit(logits, labels)
    before, after = (softmax(logits.astype(float) / each, axis=1) for each in (1, fitted.value))
    assert fitted.nll_before == pytest.approx(log_loss(labels, before))
    assert fitted.nll_after == pytest.approx(log_loss(labels, after))
    assert fitted.ece_before == pytest.approx(metrics.calibration(labels, before)[0])
    assert fitted.ece_after == pytest.approx(metrics.calibration(labels, after)[0])
    assert fitted.ece_after < 0.3 * fitted.ece_before


def test_a_temperature_needs_at_least_one_error():
    labels = np.arange(40) % 4
    logits = 5 * np.eye(4)[labels]
    assert temperature.fit(logits, labels) is None
    wrong = np.where(np.arange(40) == 0, 1, labels)
    assert 0.5 < temperature.fit(logits, wrong).value < 5


def test_the_temperature_for_predictions_worse_than_chance_is_the_highest():
    labels = np.zeros(20, dtype=np.int64)
    fitted = temperature.fit(np.tile([0.0, 3.0], (20, 1)), labels)
    assert fitted.value == pytest.approx(temperature.HIGHEST, rel=1e-3)
