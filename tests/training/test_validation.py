"""Numbers of validation equal scikit-learn's, and the best epoch is the best by the number in `select_by`."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, recall_score

from pipeline.training.event_log import EventLog
from pipeline.training.events import EpochEnd
from pipeline.training.validation import measure


def test_validation_agrees_with_scikit_learn_over_the_classes_that_occur():
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(60, 6)), draw.integers(0, 4, 60)
    logits[:, 3] = -9  # never predicted
    found = measure(torch.from_numpy(logits), torch.from_numpy(labels))
    predicted, of = logits.argmax(1), {"labels": np.unique(labels), "average": "macro", "zero_division": 0}
    assert found["balanced_accuracy"] == pytest.approx(recall_score(labels, predicted, **of))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, **of))
    assert found["accuracy"] == pytest.approx((predicted == labels).mean())
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities, labels=np.arange(6)))


@pytest.mark.parametrize(
    ("select_by", "best"), [("accuracy", 1), ("balanced_accuracy", 2), ("macro_f1", 3), ("loss", 4)]
)
def test_the_best_epoch_is_the_best_by_the_measure_in_select_by(select_by, best):
    log = EventLog(select_by)
    plain = EpochEnd(0, 0, 0.1, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5)
    numbers = {1: {"valid_accuracy": 0.9}, 2: {"valid_balanced_accuracy": 0.9}, 3: {"valid_macro_f1": 0.9}}
    numbers |= {4: {"valid_loss": 0.1}, 5: {}}
    for epoch, values in numbers.items():
        log.record(replace(plain, epoch=epoch, **values))
    assert log.best.epoch == best


def test_with_few_validation_images_the_last_epoch_is_taken_unless_it_is_clearly_worse():
    log = EventLog("loss", num_valid=24)
    for epoch, reached in enumerate((0.5, 23 / 24, 22 / 24, 0.25), start=1):
        log.record(EpochEnd(epoch, epoch, 0.1, 1.0, 0.5, 0.1 * epoch, reached, 1.0, 1.0, reached, reached))
        assert log.best.epoch == min(epoch, 3)


def test_without_validation_the_last_epoch_is_the_best():
    log = EventLog("macro_f1")
    for epoch in (1, 2):
        log.record(EpochEnd(epoch, epoch, 0.1, 1.0, 0.5, None, None, 1.0, 1.0))
    assert log.best.epoch == 2


@pytest.mark.parametrize("num_valid", [24, 1000])
@pytest.mark.parametrize("select_by", ["accuracy", "balanced_accuracy", "macro_f1", "loss"])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_an_epoch_whose_validation_loss_is_not_a_number_is_never_the_best(place, select_by, num_valid):
    log = EventLog(select_by, num_valid)
    plain = EpochEnd(0, 0, 0.1, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 0.5)
    # Such logits count as answers for the first class, which may be most of the images.
    broken = replace(
        plain, valid_loss=float("nan"), valid_accuracy=0.9, valid_balanced_accuracy=0.9, valid_macro_f1=0.9
    )
    for epoch in (1, 2, 3):
        log.record(replace(broken if epoch == place else plain, epoch=epoch))
    assert log.best.epoch != place
