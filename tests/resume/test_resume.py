"""An interrupted run continues where it stopped, as the same run, with the results of an uninterrupted one."""

import io
import signal
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from pipeline.model_files import checkpoint, states
from pipeline.resume import training_state
from pipeline.steps import train
from pipeline.tracking import system_metrics
from pipeline.training import device
from tests.conftest import Workplace

TRAIN = {"experiment": "none", "limit_train": 300, "limit_test": 100, "width": 8, "batch_size": 32, "optimizer": "sgd"}
TRAIN |= {"max_lr": 0.05, "epochs": 12, "ema_decay": 0.9, "mixup": 0.2}


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The results of the same training without an interruption, as `results` returns them."""
    place = Workplace(tmp_path_factory.mktemp("whole"))
    assert place.run("train", **TRAIN) == 0
    (run,) = place.runs("train")
    found = results(place, run.info.run_id)
    assert pd.read_csv(io.StringIO(found[1]))["step"].tolist() == list(range(12 * 9))
    return found


def results(workplace, run_id):
    """(digests of the weights, steps.csv, every point of every metric except measured times)."""
    fetched = {
        name: Path(workplace.client.download_artifacts(run_id, name, str(workplace.folder)))
        for name in ("weights/best.safetensors", "weights/last.safetensors", "steps.csv")
    }
    names = workplace.client.get_run(run_id).data.metrics.keys() - {"images_per_second"}
    names = {name for name in names if not name.startswith(system_metrics.GROUP)}
    points = {
        name: [(p.step, p.value) for p in workplace.client.get_metric_history(run_id, name)] for name in sorted(names)
    }
    digests = [checkpoint.digest(path) for name, path in fetched.items() if name.startswith("weights")]
    return digests, fetched["steps.csv"].read_text(), points


def state_folder(workplace, run_id):
    return workplace.folder / "state" / "classifier-pipeline" / "runs" / run_id


def saved_step(slot):
    """The number of updates before the state in the file `slot` was saved."""
    return checkpoint.describe(slot)["step"]


def wait_for_epochs(workplace, process, number, step="train"):
    """The id of the run of `step`, as soon as it has logged `number` epochs."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        for run in workplace.runs(step):
            if len(workplace.client.get_metric_history(run.info.run_id, "lr")) >= number:
                return run.info.run_id
        time.sleep(0.2)
    raise AssertionError("no epoch within two minutes")


def interrupt(workplace, number, step="train", **params):
    """Starts a training and sends signal `number` after three epochs.

    Returns (run id, exit status, seconds from the signal to the end, standard error).
    """
    process = workplace.start(step, **params)
    run_id = wait_for_epochs(workplace, process, 3)
    sent = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return run_id, process.returncode, time.monotonic() - sent, err


@pytest.mark.slow
def test_sigterm_saves_the_state_and_ends_with_143_and_mlflow_run_continues_the_same_run(workplace, whole):
    run_id, status, seconds, err = interrupt(workplace, signal.SIGTERM, **TRAIN)
    assert (status, err.splitlines()[-1]) == (143, "terminated")
    assert seconds < 30  # schedulers wait about so long
    assert workplace.client.get_run(run_id).info.status == "KILLED"
    assert {"states/state-a.safetensors", "states/state-b.safetensors"} <= workplace.artifacts(run_id)

    before = workplace.client.get_run(run_id).data
    done = workplace.mlflow_run("train", resume="latest")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"run {run_id} continues after update" in done.stderr
    run = workplace.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    assert run.data.params == before.params
    assert results(workplace, run_id) == whole
    assert not state_folder(workplace, run_id).exists()
    assert not {path for path in workplace.artifacts(run_id) if path.startswith("states")}
    (launched,) = (run for run in workplace.runs() if "step" not in run.data.tags)
    assert launched.data.tags["mlflow.parentRunId"] == run_id  # the run that `mlflow run` created points to it


def test_a_training_killed_within_an_epoch_continues_even_from_the_older_state(workplace, whole, capsys):
    often = {**TRAIN, "checkpoint_minutes": 1e-6}
    run_id, *_ = interrupt(workplace, signal.SIGKILL, **often)
    assert workplace.client.get_run(run_id).info.status == "RUNNING"
    slots = sorted(
        state_folder(workplace, run_id).glob("state-?.safetensors"), key=lambda p: checkpoint.describe(p)["step"]
    )
    assert len(slots) == 2
    assert any(saved_step(slot) % 9 for slot in slots)
    newest = bytearray(slots[-1].read_bytes())
    newest[-100] ^= 1
    slots[-1].write_bytes(newest)
    assert workplace.run("train", **often, resume="auto") == 0
    assert "a saved state is damaged" in capsys.readouterr().err
    assert results(workplace, run_id) == whole


@pytest.mark.slow
def test_epochs_after_the_last_state_are_trained_again_but_logged_once(workplace, whole):
    run_id, *_ = interrupt(workplace, signal.SIGKILL, **TRAIN)
    (state,) = state_folder(workplace, run_id).glob("state-?.safetensors")
    assert saved_step(state) == 9  # after the first of three epochs or more
    assert workplace.run("train", **TRAIN, resume="auto") == 0
    assert workplace.runs("train")[0].info.run_id == run_id
    assert results(workplace, run_id) == whole


@pytest.mark.parametrize(
    ("changed", "minutes", "steps"),
    [
        ({}, 10, [9, 36]),
        pytest.param({"EPOCH_SECONDS": 0}, 10, [9, 18, 27, 36], marks=pytest.mark.slow),
        ({}, 1e-6, list(range(1, 37))),
    ],
)
def test_states_are_saved_after_the_first_and_last_epoch_and_when_due(workplace, monkeypatch, changed, minutes, steps):
    kept, save = [], states.save
    monkeypatch.setattr(states, "save", lambda run_id, tree, step: kept.append(step) or save(run_id, tree, step))
    for name, value in changed.items():
        monkeypatch.setattr(training_state, name, value)
    assert workplace.run("train", **{**TRAIN, "epochs": 4}, checkpoint_minutes=minutes) == 0
    assert list(dict.fromkeys(kept)) == steps
    (run,) = workplace.runs("train")
    assert run.data.metrics[training_state.STATE_SECONDS] >= 0


@pytest.mark.slow
def test_a_training_interrupted_after_its_last_update_can_finish(workplace, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train.Step, "conclude", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        assert workplace.run("train", **TRAIN) == 143
    assert workplace.run("train", resume="latest") == 0
    (run,) = workplace.runs("train")
    assert run.info.status == "FINISHED"
    assert results(workplace, run.info.run_id) == whole
    assert not state_folder(workplace, run.info.run_id).exists()


def test_changed_parameters_are_refused_by_name_and_a_run_continues_elsewhere_from_its_artifacts(
    workplace, whole, capsys, monkeypatch
):
    assert workplace.run("train", resume="latest") == 2
    assert "no interrupted train run that can be resumed in this MLflow experiment" in capsys.readouterr().err
    run_id, *_ = interrupt(workplace, signal.SIGINT, **TRAIN)
    for name, value in {"epochs": 20, "optimizer": "adamw", "seed": 3}.items():
        capsys.readouterr()
        assert workplace.run("train", resume="latest", **{name: value}) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}={value} was {TRAIN.get(name, 0)}" in line
    assert len(workplace.runs()) == 1
    assert workplace.run("train", **{**TRAIN, "epochs": 1}, resume="auto") == 0
    newest, interrupted = workplace.runs("train")
    assert interrupted.info.run_id == run_id
    assert (newest.info.status, interrupted.info.status) == ("FINISHED", "KILLED")
    state_folder(workplace, run_id).rename(workplace.folder / "gone")  # as on another machine
    begun = interrupted.data.tags["precision"]
    other = {"fp32": "bf16"}.get(begun, "fp32")
    monkeypatch.setattr(device, "_fastest", lambda _: (other, "this processor has other formats"))
    capsys.readouterr()
    assert workplace.run("train", resume="latest", device="cpu", keep_checkpoints="true") == 0
    assert f"number format {begun}, as at the start of the run; {other} would change" in capsys.readouterr().err
    assert workplace.client.get_run(run_id).info.status == "FINISHED"
    assert results(workplace, run_id) == whole
    assert {"states/state-a.safetensors", "states/state-b.safetensors"} <= workplace.artifacts(run_id)
    assert workplace.run("train", resume=run_id) == 2
    assert "the run is FINISHED" in capsys.readouterr().err


@pytest.mark.slow
def test_an_experiment_continues_with_the_interrupted_step(workplace, capsys):
    steps = {**TRAIN, "max_lr": "auto", "mixup": 0, "lr_rule": "steepest", "num_repeats": 2, "num_images": 2}
    steps |= {"ladder_steps": 200}  # after 100, the loss may not have fallen by 5 %
    train_id, status, *_ = interrupt(workplace, signal.SIGTERM, step="main", **steps)
    assert status == 143
    (parent,) = workplace.runs("main")
    assert workplace.run("main", resume="latest") == 0
    (parent,) = workplace.runs("main")
    (lr_range,) = workplace.runs("lr_range")
    (training,) = workplace.runs("train")
    assert f"== lr_range: not run again, run {lr_range.info.run_id} has finished it" in capsys.readouterr().err
    assert training.info.run_id == train_id
    assert {run.info.status for run in (parent, lr_range, training)} == {"FINISHED"}
    assert [p.step for p in workplace.client.get_metric_history(train_id, "lr")] == list(range(1, 13))
    assert parent.data.tags.keys() >= {"lr_range.run_id", "train.run_id", "evaluate.run_id", "explain.run_id"}
    assert len(workplace.client.get_metric_history(parent.info.run_id, "lr_range/suggestion")) == 1


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_saved(workplace, whole):
    process = workplace.start("train", **TRAIN)
    run_id = wait_for_epochs(workplace, process, 2)
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (30_000, 30_000))  # no file may grow beyond this
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    message = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(message) == 1
    assert "the disk is full" in message[0]
    assert f"resume={run_id}" in message[0]
    assert "Traceback" not in err
    assert not list(state_folder(workplace, run_id).glob(".*partial"))
    assert workplace.run("train", resume=run_id) == 0
    assert results(workplace, run_id) == whole


@pytest.mark.slow
def test_out_of_memory_says_what_to_do(workplace):
    process = workplace.start("train", **{**TRAIN, "epochs": 1000})
    run_id = wait_for_epochs(workplace, process, 2)
    taken = psutil.Process(process.pid).memory_info().vms
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_AS, (taken, taken))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "error: out of memory" in err
    assert f"resume={run_id}" in err
    assert "Traceback" not in err
