"""The benchmark of resuming compares everything, and reports its result."""

import signal
import time

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from PIL import Image

from benchmarks.verify_resume import Left, Place, differences, main
from pipeline.params import TrainParams

TINY = {"experiment": "none", "limit_train": 300, "limit_test": 100, "width": 4, "batch_size": 32, "epochs": 40}
TINY |= {"max_lr": 0.01}
EXPECTED = Left({"weights": "a", "steps.csv": "b"}, {"loss": [(1, 0.5), (2, 0.25)]})


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (EXPECTED, []),
        (Left({"weights": "other", "steps.csv": "b"}, EXPECTED.curves), ["weights"]),
        (Left(EXPECTED.digests, {"loss": [(1, 0.5), (2, 0.26)]}), ["loss"]),
        (Left(EXPECTED.digests, {"loss": [(1, 0.5)]}), ["loss"]),
        (Left({"weights": "a"}, {}), ["steps.csv", "loss"]),
        (Left(EXPECTED.digests, {**EXPECTED.curves, "more": [(1, 1.0)]}), ["more"]),
    ],
)
def test_every_difference_is_named(found, names):
    assert differences(EXPECTED, found) == names


@pytest.mark.slow
def test_the_benchmark_trains_in_its_own_folder_and_reads_images_in_theirs(tmp_path, monkeypatch):
    for name in ("EXPERIMENT_ID", "EXPERIMENT_NAME", "RUN_ID"):
        monkeypatch.setenv(f"MLFLOW_{name}", "7")
    monkeypatch.setenv("HOME", str(tmp_path))
    for position in range(60):
        path = tmp_path / "photos" / "ab"[position % 2] / f"{position}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 4 * position, np.uint8)).save(path)
    folder = {"dataset": "folder", "data_dir": "~/photos", "limit_train": 0, "limit_test": 0, "epochs": 1}
    place = Place(tmp_path / "place", TrainParams(**{**TINY, **folder, "batch_size": 8}))
    place.train_to_the_end()
    assert len(place.left().curves["train/loss"]) == 1
    runs = MlflowClient(f"sqlite:///{tmp_path}/place/mlflow.db").search_runs(["0"])
    assert [run.data.params["device"] for run in runs] == ["cpu", "cpu"]


@pytest.mark.slow
def test_the_training_of_a_stopped_benchmark_ends_too(workplace):
    process = workplace.start("verify_resume", module="benchmarks.verify_resume", **TINY)
    deadline = time.monotonic() + 120
    while not (trainings := psutil.Process(process.pid).children()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    left = [training for training in trainings if training.is_running()]
    for training in left:
        training.kill()
    assert (process.returncode, left) == (143, [])


def words(**params):
    return [word for name, value in params.items() for word in (f"--{name}", str(value))]


def test_weights_of_a_run_are_refused_at_once(capsys):
    assert main(words(**TINY, weights=f"run:{'0' * 32}")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a store of their own, which holds no other run; give a file of its weights" in line


def test_every_device_but_the_cpu_is_refused_at_once(capsys):
    assert main(words(**TINY, device="cuda")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "agree to the bit on the CPU alone" in line


@pytest.mark.slow
def test_a_training_killed_twice_ends_as_an_undisturbed_one(capsys):
    assert main(words(**TINY, num_kills=2)) == 0
    assert "times, the training ended as the undisturbed one, to the bit" in capsys.readouterr().err
