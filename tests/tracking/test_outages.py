"""A training loses nothing if the tracking server is away, hangs or fails: in the end, each point is stored once."""

import contextlib
import itertools
import json
import logging
import signal
import sqlite3
import statistics
import time

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException

from pipeline import progress
from pipeline.model_files import registry
from pipeline.tracking import errors, journal, lifecycle, store
from pipeline.tracking.run import Run
from tests.conftest import Workplace
from tests.tracking.servers import Door, ServedPlace, Server

log = logging.getLogger(__name__)

TRAIN = {"experiment": "none", "limit_train": 300, "limit_test": 100, "width": 8, "batch_size": 32, "optimizer": "sgd"}
TRAIN |= {"max_lr": 0.05}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("served") / "server") as server:
        yield server


@pytest.fixture
def door(server):
    with Door(server) as door:
        yield door


def journals(place):
    return sorted((place.folder / "state" / "classifier-pipeline" / "runs").glob("*/journal-*"))


def logged_epochs(place):
    """The epochs that the training has written to its journal so far."""
    files = [journal / "entries.jsonl" for journal in journals(place)]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines(keepends=True)]
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [entry["step"] for entry in entries if entry["kind"] == "metrics" and "lr" in entry["values"]]


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_epochs(place, process, number):
    wait_until(lambda: process.poll() is not None or len(logged_epochs(place)) >= number)
    assert process.poll() is None, process.communicate()[1]


def all_points(place, run_id):
    """Every point of every metric of a run."""
    names = place.client.get_run(run_id).data.metrics
    return {
        name: [(point.step, point.value, point.timestamp) for point in place.client.get_metric_history(run_id, name)]
        for name in names
    }


def assert_whole(place, epochs, status="FINISHED"):
    """Asserts that the only run has `status`, all its files, and every point of every epoch once and in order."""
    (run,) = place.runs("train")
    assert run.info.status == status
    for name in ("lr", "train/loss", "train/accuracy", "valid/loss", "valid/accuracy", "images_per_second"):
        points = place.client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in points] == list(range(1, epochs + 1)), name
        assert [point.timestamp for point in points] == sorted(point.timestamp for point in points)
    assert place.artifacts(run.info.run_id) >= {"weights/best.safetensors", "curves.png", "params.json", "steps.csv"}
    assert not journals(place)


def num_points(place):
    """The number of epochs that the server knows."""
    (run,) = place.runs("train")
    return len(place.client.get_metric_history(run.info.run_id, "lr"))


@pytest.mark.slow
def test_a_training_continues_through_every_kind_of_outage_and_every_point_is_stored_once(tmp_path, server, door):
    place = ServedPlace(tmp_path, door.uri)
    outages = {
        "stopped": (server.stop, server.start),
        "hanging": (server.freeze, server.thaw),
        "answering 500": (door.fail, door.recover),
        "losing its answers": (door.lose_answers, door.recover),
    }
    process = place.start("train", **TRAIN, epochs=10_000)
    wait_for_epochs(place, process, 3)
    for begins, ends in outages.values():
        begins()
        wait_for_epochs(place, process, len(logged_epochs(place)) + 5)
        ends()
        logged = len(logged_epochs(place))
        wait_until(lambda logged=logged: num_points(place) >= logged)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert_whole(place, num_points(place), "KILLED")


def test_a_run_is_created_once_although_the_answer_is_lost(tmp_path, server, door):
    place = ServedPlace(tmp_path, door.uri)
    store.use(door.uri)
    try:
        client = store.Client()
        client.search_runs([place.experiment_id])  # the client waits only for a store that has answered before
        door.lose_answers(to="runs/create")
        run = client.create_run(place.experiment_id, run_name="test", tags={"step": "train"})
        assert [each.info.run_id for each in place.runs()] == [run.info.run_id]
    finally:
        store.use(None)


def test_a_server_that_forbids_new_experiments_gives_its_reason(server, door, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine alone")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    door.fail(403, to="experiments/create")
    store.use(door.uri)
    try:
        with pytest.raises(ValueError, match=f"^tracking store {door.uri}: .* error code 403") as refused:
            store.experiment_id()
        assert len(str(refused.value).splitlines()) == 1
    finally:
        store.use(None)


def test_a_version_is_registered_once_although_every_answer_is_lost(server, door):
    client = MlflowClient(door.uri)
    training, evaluation = (client.create_run("0").info.run_id for _ in range(2))
    model = client.create_logged_model("0", "model", source_run_id=training)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(training, [LoggedModelOutput(model.model_id, 0)])
    client.create_registered_model("photos")
    door.lose_answers("model-versions/create")
    with pytest.raises(MlflowException):
        registry.register(client, "photos", training, evaluation, "digest")
    door.recover()
    assert "photos version 1, champion" in registry.register(client, "photos", training, evaluation, "digest")
    (version,) = client.search_model_versions("name = 'photos'")
    assert version.run_id == training


@pytest.mark.parametrize(
    "status", [pytest.param(each, marks=pytest.mark.slow) for each in (401, 404)]
)  # 500 is tested above
def test_sync_sends_what_a_server_refused_and_a_second_sync_changes_nothing(tmp_path, server, door, capsys, status):
    place = ServedPlace(tmp_path, door.uri)
    process = place.start("train", **TRAIN, epochs=10_000)
    wait_for_epochs(place, process, 3)
    door.fail(status)
    wait_for_epochs(place, process, len(logged_epochs(place)) + 5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143
    (journal,) = journals(place)
    assert "python -m pipeline sync" in err.splitlines()[-1]
    assert str(journal) in err.splitlines()[-1]
    num_epochs = len(logged_epochs(place))

    assert place.run("sync") == 1
    assert f"not sent, kept in {journal}" in capsys.readouterr().err
    door.recover()
    assert place.run("sync") == 0
    (run,) = place.runs("train")
    stored = all_points(place, run.info.run_id)
    assert run.info.status == "KILLED"
    assert [step for step, _, _ in stored["lr"]] == list(range(1, num_epochs + 1))
    assert place.artifacts(run.info.run_id) >= {"weights/last.safetensors", "curves.png", "steps.csv"}
    capsys.readouterr()
    assert place.run("sync") == 0
    assert capsys.readouterr().err.splitlines()[-1] == "nothing to send"
    assert all_points(place, run.info.run_id) == stored


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "<html>Bad Request</html>"),
        (405, "try later"),
        (409, ""),
        (410, '{"message": "no"}'),
        (422, '{"error_code": 409}'),
        (499, "[1]"),
        (502, "<html>Bad Gateway</html>"),
    ],
)
def test_an_answer_that_does_not_come_from_the_store_is_no_refusal(server, door, tmp_path, status, says):
    client = MlflowClient(door.uri)
    run_id = client.create_run("0").info.run_id
    (tmp_path / "file").touch()
    door.fail(status, says)
    for send in (
        lambda: client.log_metric(run_id, "a", 1),
        lambda: client.log_artifact(run_id, str(tmp_path / "file")),
    ):
        with pytest.raises((MlflowException, requests.HTTPError)) as raised:
            send()
        assert not errors.is_refusal(raised.value)
    door.recover()


def test_a_run_loses_nothing_while_a_proxy_answers_with_errors(tmp_path, monkeypatch, server, door):
    place = ServedPlace(tmp_path, door.uri)
    for name in ("MLFLOW_EXPERIMENT_ID", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, place.environment[name])
    monkeypatch.setattr("pipeline.tracking.run.QUIET_SECONDS", 2)
    mlflow.set_tracking_uri(door.uri)
    try:
        with lifecycle.start("train", "behind a proxy") as run:
            for epoch, status in enumerate((400, 409, 499), 1):
                door.fail(status, "<html>not now</html>")
                run.metrics({"loss": 1 / epoch}, step=epoch)
                run.text(f"{epoch}.txt", "whole")
                started = time.monotonic()
                assert not run.flush(2.2)
                assert time.monotonic() - started < 4
                door.recover()
                assert run.flush()
    finally:
        mlflow.set_tracking_uri(None)
    assert [point.step for point in place.client.get_metric_history(run.id, "loss")] == [1, 2, 3]
    assert place.artifacts(run.id) == {"1.txt", "2.txt", "3.txt"}
    assert place.client.get_run(run.id).info.status == "FINISHED"
    assert not journals(place)


@pytest.mark.slow
def test_a_training_gets_its_rate_although_the_store_fails_at_the_end_of_the_range_test(tmp_path, monkeypatch):
    place = Workplace(tmp_path)
    # The test need not wait two minutes, and must not send what other tests have left unsent.
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 1)
    monkeypatch.setattr(Run.flush, "__defaults__", (1,))
    monkeypatch.setattr(journal, "left_behind", [])
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as database:

        def lock_the_store(result):
            if result.startswith("range test"):
                database.execute("BEGIN EXCLUSIVE")

        monkeypatch.setattr(progress, "conclude", lock_the_store)
        assert place.run("train", **{**TRAIN, "max_lr": "auto"}, epochs=2) == 0
        assert database.in_transaction
    assert place.run("sync") == 0
    (test,) = place.runs("lr_range")
    (training,) = place.runs("train")
    assert (test.info.status, training.info.status) == ("FINISHED", "FINISHED")
    assert training.data.tags["lr_range.run_id"] == test.info.run_id
    assert float(training.data.params["max_lr"]) == test.data.metrics["lr_range/suggestion"]


@pytest.mark.slow
@pytest.mark.parametrize("outage", [("stop", "start"), ("freeze", "thaw")], ids=["stopped", "hanging"])
def test_an_outage_of_a_minute_does_not_slow_a_training(tmp_path, server, outage):
    place = ServedPlace(tmp_path, server.uri)
    begins, ends = (getattr(server, name) for name in outage)
    process = place.start("train", **{**TRAIN, "width": 16, "limit_train": 1000}, epochs=250)
    wait_for_epochs(place, process, 5)
    moments = [time.time()]
    for wait, act in ((30, begins), (60, ends)):
        time.sleep(wait)
        act()
        moments.append(time.time())
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert_whole(place, 250)
    points = place.client.get_metric_history(place.runs("train")[0].info.run_id, "images_per_second")
    before, during = (
        statistics.median(point.value for point in points if start < point.timestamp / 1000 < end)
        for start, end in itertools.pairwise(moments)
    )
    log.info("images/s before the outage %.0f, during it %.0f", before, during)
    assert during > 0.8 * before  # waiting 20 s for one request would make it slower


@pytest.mark.slow
def test_a_training_finishes_although_the_server_never_comes_back(tmp_path, server):
    place = ServedPlace(tmp_path, server.uri)
    process = place.start("train", **TRAIN, epochs=40)
    wait_for_epochs(place, process, 3)
    server.stop()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "python -m pipeline sync" in err.splitlines()[-1]
    server.start()
    assert place.run("sync") == 0
    assert_whole(place, 40)
