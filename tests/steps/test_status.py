"""`status` beside real runs: it reads everything from their store."""

import signal
import subprocess
import time

import pytest

from pipeline.tracking import processes
from tests.conftest import PROJECT, Workplace
from tests.history.test_status import LONG, wait_for_an_epoch
from tests.terminal import COLUMNS, Terminal
from tests.tracking.servers import ServedPlace, Server


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


def lines(workplace, capsys):
    """The lines that `status` prints."""
    capsys.readouterr()
    assert workplace.run("status") == 0
    return capsys.readouterr().out.splitlines()


def tags_of(**more):
    """The tags of a run of this process, and `more`."""
    return {**processes.as_tags(processes.this()), **more}


def test_a_missing_store_has_nothing_under_way_and_is_not_created(workplace, capsys, tmp_path):
    workplace.uri = f"sqlite:///{tmp_path}/none.db"
    assert lines(workplace, capsys) == [f"nothing is under way in {workplace.uri}"]
    assert not (tmp_path / "none.db").exists()


def test_a_training_under_way_is_listed_and_follow_says_that_it_died(workplace, capsys):
    process = workplace.start("train", experiment="none", **LONG)
    run_id = wait_for_an_epoch(workplace, process)
    time.sleep(3)  # some epochs more
    head, row = lines(workplace, capsys)
    assert head.split() == ["under", "way", "step", "done", "left", "run"]
    name, step, done, left, shown_id = row.split("  ")[0], *row.split()[-5:-3], *row.split()[-2:]
    assert name.startswith("digits resnet18")
    assert shown_id == run_id
    assert (step, done.partition("/")[2]) == ("train", "10000")
    assert left.count(":") >= 1
    environment = {**workplace.environment, "PYTHONPATH": str(PROJECT)}
    command = workplace.command("status", "--follow", every_seconds=0.5)
    with Terminal(command, cwd=workplace.folder, env=environment) as terminal:
        assert "/10000 epochs" in terminal.read(60, until="/10000 epochs")
        assert max(map(len, terminal.drawn)) <= COLUMNS
        process.send_signal(signal.SIGKILL)
        process.communicate()
        terminal.read(60)
        assert terminal.process.returncode == 0
    assert f"dead, its process is gone: run {run_id}" in terminal.text
    assert workplace.client.get_run(run_id).info.status == "RUNNING"  # looking changes nothing


def test_the_steps_of_an_experiment_are_listed_below_it_with_the_time_left(workplace, capsys):
    now = int(time.time() * 1000)
    create = workplace.client.create_run
    whole = create("0", run_name="all", tags=tags_of(step="main", **{processes.PROGRESS: "1/4"})).info.run_id
    inner = create("0", run_name="it", tags=tags_of(step="train", **{"mlflow.parentRunId": whole})).info.run_id
    workplace.client.log_param(inner, "epochs", "10")
    for epoch in (1, 2, 3):
        workplace.client.log_metric(inner, "lr", 0.1, now - (3 - epoch) * 20_000, epoch)
    _, first, second = lines(workplace, capsys)
    assert first.split()[:3] == ["all", "main", "1/4"]
    assert second.startswith("  it")
    assert "3/10 epochs" in second
    # Seven epochs of 20 s are left. The current one may have begun some seconds ago.
    left = next(word for word in second.split() if ":" in word)
    minutes, seconds = map(int, left.split(":"))
    assert 100 <= 60 * minutes + seconds <= 140
    assert f"{left} + 2 steps" in first


def test_after_one_epoch_only_an_upper_bound_of_the_time_left_is_shown(workplace, capsys):
    run_id = workplace.client.create_run("0", run_name="it", tags=tags_of(step="trial")).info.run_id
    workplace.client.log_param(run_id, "epochs", "3")
    assert "0/3 epochs  " in lines(workplace, capsys)[1]
    workplace.client.log_metric(run_id, "lr", 0.1, int(time.time() * 1000) + 9_000, 1)
    assert "1/3 epochs  under 0:" in lines(workplace, capsys)[1]


def test_the_time_left_of_a_study_is_estimated_from_its_finished_trials(workplace, capsys):
    now = int(time.time() * 1000)
    client = workplace.client
    study = client.create_run("0", run_name="s", tags=tags_of(step="sweep", **{processes.PROGRESS: "2/6"})).info.run_id
    for number in range(2):
        tags = tags_of(step="trial", **{"mlflow.parentRunId": study})
        trial = client.create_run("0", now - 100_000, tags, f"trial {number}").info.run_id
        client.set_terminated(trial, "FINISHED", now - 40_000)
    row = lines(workplace, capsys)[1]
    assert "2/6 trials  4:00" in row
    tags = tags_of(step="trial", **{"mlflow.parentRunId": study, processes.REOPENED: str(10**6 * (now - 50_000))})
    resumed = client.create_run("0", now - 36_000_000, tags, "interrupted in the evening").info.run_id
    client.set_terminated(resumed, "FINISHED", now)
    client.set_tag(study, processes.PROGRESS, "3/6")
    assert "3/6 trials  3:00" in lines(workplace, capsys)[1]


def test_the_time_left_of_robustness_assumes_that_all_cases_take_equally_long(workplace, capsys):
    tags = tags_of(step="robustness", **{processes.PROGRESS: "0/46"})
    run_id = workplace.client.create_run("0", int(time.time() * 1000) - 60_000, tags, "r").info.run_id
    assert lines(workplace, capsys)[1].split()[2:4] == ["0/46", "cases"]
    workplace.client.set_tag(run_id, processes.PROGRESS, "23/46")
    assert "23/46 cases  1:0" in lines(workplace, capsys)[1]


@pytest.mark.parametrize(
    "run",
    [
        {"run_name": "[red]\x1b[31m\n<b>", "tags": {"step": "train"}},
        {"run_name": "a", "tags": {"step": "[bold]"}},
        {"run_name": "a", "tags": {"step": "sweep", processes.PROGRESS: "../../x"}},
        {"run_name": "a", "tags": {"step": "sweep", processes.PROGRESS: "9" * 5000 + "/7"}},
        {"run_name": "a", "tags": {"step": "main", processes.PROGRESS: "٣/٤"}},
        {"run_name": "a", "tags": {"step": "trial", "mlflow.parentRunId": "nowhere"}},
        {"run_name": "a", "tags": {}},
    ],
    ids=lambda run: repr(run)[:30],
)
def test_hostile_names_and_tags_of_runs_are_shown_as_harmless_text(workplace, capsys, run):
    run_id = workplace.client.create_run("0", **run).info.run_id
    workplace.client.log_param(run_id, "epochs", "x" * 30)
    found = lines(workplace, capsys)
    assert len(found) == 2
    assert found[1].endswith(run_id)
    assert "\x1b" not in found[1]


def test_a_cycle_of_parent_runs_does_not_hang_status(workplace, capsys):
    first = workplace.client.create_run("0", run_name="a").info.run_id
    second = workplace.client.create_run("0", run_name="b", tags={"mlflow.parentRunId": first}).info.run_id
    workplace.client.set_tag(first, "mlflow.parentRunId", second)
    assert len(lines(workplace, capsys)) == 3


@pytest.mark.slow
def test_status_reads_a_tracking_server_and_says_when_it_is_away(tmp_path):
    with Server(tmp_path / "server") as server:
        place = ServedPlace(tmp_path, server.uri)
        run_id = place.client.create_run(place.experiment_id, run_name="far", tags=tags_of(step="train")).info.run_id
        done = status(place)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[1].endswith(run_id)
    done = status(place)
    assert done.returncode == 2
    assert done.stderr.startswith("error: tracking store")


def status(place):
    return subprocess.run(
        place.command("status"),
        cwd=place.folder,
        env={**place.environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
