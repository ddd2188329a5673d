import dataclasses
import pickle

import numpy as np
import pytest
import torch

from pipeline.history import stored_calibration
from pipeline.model_files import checkpoint
from pipeline.results.novelty import Familiar
from pipeline.results.temperature import Temperature
from pipeline.training.calibration import Calibration

FITTED = Temperature(1.3, 100, 0.5, 0.4, 0.1, 0.05)
GOOD = {"whitening": torch.eye(4), "means": torch.ones(2, 4)}
NUMBERS = {"temperature": dataclasses.asdict(FITTED), "limit": 3.5}


@pytest.mark.parametrize("temperature", [FITTED, None])
def test_a_saved_calibration_is_loaded_unchanged(tmp_path, temperature):
    familiar = Familiar(np.eye(4, dtype=np.float32), np.ones((2, 4), np.float32), 3.5)
    stored_calibration.save(tmp_path / "file", Calibration(temperature, familiar))
    found = stored_calibration.load(tmp_path / "file")
    assert found.temperature == temperature
    assert found.familiar.limit == 3.5
    assert np.array_equal(found.familiar.whitening, familiar.whitening)
    assert np.array_equal(found.familiar.means, familiar.means)


@pytest.mark.parametrize(
    ("tensors", "described"),
    [
        ({"means": torch.ones(2, 4)}, NUMBERS),
        ({**GOOD, "means": torch.ones(2, 5)}, NUMBERS),
        ({**GOOD, "means": torch.ones(0, 4)}, NUMBERS),
        ({**GOOD, "means": torch.ones(4)}, NUMBERS),
        ({**GOOD, "whitening": torch.eye(4).long()}, NUMBERS),
        (GOOD, {"limit": 3.5}),
        (GOOD, {**NUMBERS, "limit": -1}),
        (GOOD, {**NUMBERS, "limit": float("nan")}),
        (GOOD, {**NUMBERS, "temperature": {"value": 1.0}}),
        (GOOD, {**NUMBERS, "temperature": {**NUMBERS["temperature"], "value": 0.0}}),
        (GOOD, {**NUMBERS, "more": 1}),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, tensors, described):
    checkpoint.save(tmp_path / "file", tensors, described)
    with pytest.raises(ValueError, match="not a calibration of this pipeline") as refused:
        stored_calibration.load(tmp_path / "file")
    assert len(str(refused.value).splitlines()) == 1


def test_a_pickle_is_not_loaded(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path / "executed").touch, ()

    (tmp_path / "file").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="not weights"):
        stored_calibration.load(tmp_path / "file")
    assert not (tmp_path / "executed").exists()


def test_the_numbers_of_a_calibration_have_metric_names():
    numbers = stored_calibration.numbers(Calibration(FITTED, Familiar(np.eye(1), np.ones((1, 1)), 3.5)))
    assert numbers["calibration/temperature"] == 1.3
    assert numbers["calibration/ece_before"] == 0.1
    assert numbers["calibration/distance_limit"] == 3.5
    without = stored_calibration.numbers(Calibration(None, Familiar(np.eye(1), np.ones((1, 1)), 3.5)))
    assert without == {"calibration/distance_limit": 3.5}
