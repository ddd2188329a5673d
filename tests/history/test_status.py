"""A run has the right status, whatever ended it."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from pipeline.tracking import processes
from tests.conftest import Workplace

LONG = {
    "limit_train": 300,
    "width": 8,
    "batch_size": 32,
    "optimizer": "sgd",
    "max_lr": 0.05,
    "epochs": 10_000,
}


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


def wait_for_an_epoch(workplace, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        for run in workplace.runs("train") if (workplace.folder / "mlflow.db").exists() else []:
            if "train/loss" in run.data.metrics:
                return run.info.run_id
        time.sleep(0.5)
    raise AssertionError("no epoch within two minutes")


@pytest.mark.slow
def test_an_interrupted_training_has_the_status_killed_and_keeps_its_weights_and_curves(workplace):
    process = workplace.start("train", experiment="none", **LONG)
    run_id = wait_for_an_epoch(workplace, process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)  # MLflow's launcher sends it at once, too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert workplace.client.get_run(run_id).info.status == "KILLED"
    assert {"weights/best.safetensors", "weights/last.safetensors", "curves.png"} <= workplace.artifacts(run_id)


def test_the_next_start_closes_the_run_of_a_dead_process(workplace):
    process = workplace.start("train", experiment="none", **LONG)
    run_id = wait_for_an_epoch(workplace, process)
    process.kill()
    process.communicate()
    assert workplace.client.get_run(run_id).info.status == "RUNNING"
    assert workplace.run("train", experiment="none", **{**LONG, "epochs": 1}) == 0
    dead = workplace.client.get_run(run_id)
    assert dead.info.status == "FAILED"
    assert "ended without closing the run" in dead.data.tags["error"]


def test_a_diverging_training_fails_and_names_step_and_rate(workplace, capsys):
    assert workplace.run("train", experiment="none", **{**LONG, "epochs": 3, "max_lr": 1000, "div_factor": 1}) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: the loss became")
    assert "Traceback" not in err
    (run,) = workplace.runs("train")
    assert run.info.status == "FAILED"
    assert "at step" in run.data.tags["error"]
    assert "with lr" in run.data.tags["error"]


@pytest.mark.parametrize(
    ("step", "params", "part"),
    [
        ("evaluate", {}, "no FINISHED training in this MLflow experiment"),
        ("explain", {"run_id": "0" * 32}, "no such run"),
        ("train", {"dataset": "folder", "data_dir": "nowhere"}, "nowhere"),
        ("train", {"limit_train": 100, "batch_size": 128}, "batch_size=128 is more than the 90 train images"),
        ("train", {"device": "cuda:7"}, "device=cuda:7: not on this machine"),
    ],
)
def test_bad_input_is_one_line_and_makes_no_run(workplace, capsys, step, params, part):
    assert workplace.runs() == []  # creates the store, so that messages about that come before
    capsys.readouterr()
    assert workplace.run(step, **params) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err
    assert workplace.runs() == []


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="needs Linux")
def test_a_live_process_stays_alive_after_a_clock_change_and_with_tags_of_an_earlier_version(tmp_path, monkeypatch):
    tags = processes.this()
    started = psutil.Process().create_time()
    earlier = {**{name: tags[name] for name in ("process.host", "process.pid")}, "process.started": str(started)}
    assert not processes.is_dead(earlier)
    assert processes.is_dead({**earlier, "process.started": str(started - 5)})
    # After a clock change, Linux reports another time of boot.
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    stat = Path("/proc/stat").read_text()
    (tmp_path / "stat").write_text(re.sub(r"(?<=btime )\d+", lambda found: str(int(found[0]) + 3600), stat))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.Process().create_time() == pytest.approx(started + 3600)
    assert processes.this() == tags
    assert not processes.is_dead(processes.as_tags(tags))
    seconds = tags["process.started"].split()[-1]
    before = {**tags, "process.started": f"an-earlier-boot {seconds}"}  # it may be another machine of the same name
    assert processes.is_dead({**before, **{"process.seen": "0"}})
    assert not processes.is_dead({**before, **processes.sign_of_life()})
