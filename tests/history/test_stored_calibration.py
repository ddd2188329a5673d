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
TOLD = {"temperature": dataclasses.asdict(FITTED), "limit": 3.5}


@pytest.mark.parametrize("temperature", [FITTED, None])
def test_what_is_kept_comes_back(tmp_path, temperature):
    familiar = Familiar(np.eye(4, dtype=np.float32), np.ones((2, 4), np.float32), 3.5)
    stored_calibration.save(tmp_path / "file", Calibration(temperature, familiar))
    found = stored_calibration.load(tmp_path / "file")
    assert found.temperature == temperature
    assert found.familiar.limit == 3.5
    assert np.array_equal(found.familiar.whitening, familiar.whitening)
    assert np.array_equal(found.familiar.means, familiar.means)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"means": torch.ones(2, 4)}, TOLD),
        ({**GOOD, "means": torch.ones(2, 5)}, TOLD),
        ({**GOOD, "means": torch.ones(0, 4)}, TOLD),
        ({**GOOD, "means": torch.ones(4)}, TOLD),
        ({**GOOD, "whitening": torch.eye(4).long()}, TOLD),
        (GOOD, {"limit": 3.5}),
        (GOOD, {**TOLD, "limit": -1}),
        (GOOD, {**TOLD, "limit": float("nan")}),
        (GOOD, {**TOLD, "temperature": {"value": 1.0}}),
        (GOOD, {**TOLD, "temperature": {**TOLD["temperature"], "value": 0.0}}),
        (GOOD, {**TOLD, "more": 1}),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, tensors, told):
    checkpoint.save(tmp_path / "file", tensors, told)
    with pytest.raises(ValueError, match="no calibration of this pipeline") as refused:
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


def test_its_numbers_have_names():
    numbers = stored_calibration.numbers(Calibration(FITTED, Familiar(np.eye(1), np.ones((1, 1)), 3.5)))
    assert numbers["calibration/temperature"] == 1.3
    assert numbers["calibration/ece_before"] == 0.1
    assert numbers["calibration/distance_limit"] == 3.5
    without = stored_calibration.numbers(Calibration(None, Familiar(np.eye(1), np.ones((1, 1)), 3.5)))
    assert without == {"calibration/distance_limit": 3.5}
