"""The calibration of a network is stored with its weights. One that does not fit is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.model_files import stored_calibration
from pipeline.results.novelty import Familiar
from pipeline.results.prediction_sets import PredictionSets
from pipeline.results.rejection import Outcomes
from pipeline.results.temperature import Temperature
from pipeline.training.calibration import Calibration

OUTCOMES = Outcomes(np.array([0.9, 0.7]), np.array([True, False]))
FITTED = Temperature(1.3, 100, 0.5, 0.4, 0.1, 0.05)
FAMILIAR = Familiar(np.ones((2, 4), np.float32), np.eye(4, 3, dtype=np.float32), 2.0, 3.5)
GOOD = {"calibration/means": torch.ones(2, 4), "calibration/directions": torch.eye(4)}
GOOD |= {"calibration/confidence": torch.ones(2).double(), "calibration/correct": torch.ones(2).bool()}
NUMBERS = {"temperature": dataclasses.asdict(FITTED), "scale": 2.0, "limit": 3.5, "most_error": 0.02}


OF_SETS = {"calibration/probability_of_true": torch.tensor([0.9, 0.2]).double()}
SETS = PredictionSets(0.5, 0.2, OF_SETS["calibration/probability_of_true"].numpy())


@pytest.mark.parametrize(("temperature", "sets"), [(FITTED, SETS), (None, None)])
def test_a_calibration_is_read_as_it_was_written_and_leaves_the_weights_alone(temperature, sets):
    calibration = Calibration(temperature, FAMILIAR, OUTCOMES, 0.02, sets)
    state = {"head.weight": torch.ones(1), **stored_calibration.tensors(calibration)}
    weights, own = stored_calibration.split(state)
    assert [*weights] == ["head.weight"]
    found = stored_calibration.parse(own, {"epoch": 3, **stored_calibration.described(calibration)})
    assert found.temperature == temperature
    assert (found.familiar.scale, found.familiar.limit) == (2.0, 3.5)
    assert np.array_equal(found.familiar.means, FAMILIAR.means)
    assert np.array_equal(found.familiar.directions, FAMILIAR.directions)
    assert found.threshold == calibration.threshold == 0.9
    given = np.array([[0.1, 0.7, 0.2], [0.15, 0.75, 0.1]])
    inside = [[False, True, True], [False, True, False]]
    assert found.inside(given) is None if sets is None else found.inside(given).tolist() == inside
    assert stored_calibration.parse({}, {"epoch": 3}) is None  # a file of an earlier version, or without validation


@pytest.mark.parametrize(
    ("tensors", "described"),
    [
        ({"calibration/means": torch.ones(2, 4)}, NUMBERS),
        ({**GOOD, "calibration/means": torch.ones(2, 5)}, NUMBERS),
        ({**GOOD, "calibration/means": torch.ones(0, 4)}, NUMBERS),
        ({**GOOD, "calibration/means": torch.ones(4)}, NUMBERS),
        ({**GOOD, "calibration/directions": torch.eye(4).long()}, NUMBERS),
        ({}, NUMBERS),
        (GOOD, {"limit": 3.5}),
        (GOOD, {**NUMBERS, "limit": -1}),
        (GOOD, {**NUMBERS, "scale": 0}),
        (GOOD, {**NUMBERS, "most_error": 1}),
        ({**GOOD, "calibration/confidence": torch.ones(3).double()}, NUMBERS),
        ({**GOOD, "calibration/correct": torch.ones(2)}, NUMBERS),
        (GOOD, {**NUMBERS, "limit": float("nan")}),
        (GOOD, {**NUMBERS, "temperature": {"value": 1.0}}),
        (GOOD, {**NUMBERS, "temperature": {**NUMBERS["temperature"], "value": 0.0}}),
        (GOOD, {**NUMBERS, "more": 1}),
        (GOOD, {**NUMBERS, "set_coverage": 0.9, "set_threshold": 0.5}),
        ({**GOOD, **OF_SETS}, NUMBERS),
        ({**GOOD, **OF_SETS}, {**NUMBERS, "set_coverage": 1.0, "set_threshold": 0.5}),
        (
            {**GOOD, "calibration/probability_of_true": torch.ones(2)},
            {**NUMBERS, "set_coverage": 0.9, "set_threshold": 0},
        ),
        (GOOD, "many"),
    ],
)
def test_a_calibration_with_wrong_tensors_or_numbers_is_refused_in_one_line(tensors, described):
    with pytest.raises(ValueError, match="its calibration cannot be used") as refused:
        stored_calibration.parse(tensors, {"calibration": described})
    assert len(str(refused.value).splitlines()) == 1


def test_the_numbers_of_a_calibration_have_metric_names():
    numbers = stored_calibration.numbers(Calibration(FITTED, FAMILIAR, OUTCOMES, 0.02))
    assert numbers["weights/temperature"] == 1.3
    assert numbers["weights/ece_before"] == 0.1
    assert numbers["weights/distance_limit"] == 3.5
    without = stored_calibration.numbers(Calibration(None, FAMILIAR, OUTCOMES, 0.02))
    assert without == {
        "weights/distance_limit": 3.5,
        "weights/threshold": 0.9,
        "weights/coverage": 0.5,
    }
