"""A store that cannot be used, or a deleted run or experiment, gives one line and exit status 2."""

import contextlib
import errno
import functools
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from pipeline import disk
from pipeline.resume import candidates
from pipeline.tracking import deadline, lifecycle, machine, store
from tests.conftest import Workplace

TRAIN = {"experiment": "none", "limit_train": 300, "max_lr": 0.01}


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


@pytest.fixture
def refusal(workplace, capsys):
    """A function that starts a training in the workplace, and returns the only line that the refused command prints."""

    def line():
        assert workplace.run("train", **TRAIN) == 2
        (line,) = [each for each in capsys.readouterr().err.splitlines() if not each.startswith("device ")]
        return line

    capsys.readouterr()  # the messages of MLflow about the new store
    return line


def test_an_address_without_a_scheme_is_refused_in_one_line(workplace, refusal):
    workplace.uri = "localhost:5000"
    assert refusal().startswith("error: tracking store localhost:5000: ")


def test_a_database_of_another_version_is_refused_in_one_line(workplace, refusal):
    with sqlite3.connect(workplace.folder / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    workplace.uri += "?timeout=5"  # MLflow opens a database again only under another address
    assert "tracking store sqlite:///" in refusal()


def test_a_database_that_may_only_be_read_is_refused_at_once(workplace, refusal):
    workplace.uri = f"sqlite:///file:{workplace.folder}/mlflow.db?mode=ro&uri=true"
    begun = time.monotonic()
    assert refusal() == f"error: tracking store {workplace.uri}: attempt to write a readonly database"
    assert time.monotonic() - begun < store.PATIENCE_SECONDS / 2
    assert workplace.runs() == []


def test_a_run_id_that_the_store_does_not_know_is_refused(workplace, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert workplace.run("train", **TRAIN) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: tracking store {workplace.uri}: Run with id={'0' * 32} not found")


def test_a_deleted_experiment_is_refused_with_the_command_that_restores_it(workplace, refusal, monkeypatch):
    experiment_id = workplace.client.create_experiment("photos")
    workplace.client.delete_experiment(experiment_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "photos")
    line = refusal()
    assert "experiment photos is deleted: restore it with" in line
    assert f"`mlflow experiments restore --experiment-id {experiment_id}`" in line


def test_a_deleted_run_cannot_be_resumed(workplace, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", workplace.environment["XDG_STATE_HOME"])
    run_id = workplace.client.create_run("0", tags={"step": "train"}).info.run_id
    workplace.client.delete_run(run_id)
    mlflow.set_tracking_uri(workplace.uri)
    try:
        with pytest.raises(ValueError, match=f"^resume={run_id}: the run is deleted$"):
            candidates.find("train", run_id)
    finally:
        mlflow.set_tracking_uri(None)


WITH_PASSWORD = "sqlite:///file:{}/mlflow.db?uri=true&password=hunter2"  # SQLite takes and ignores it
AWAY = [
    "http://me:hunter2@127.0.0.1:1",
    WITH_PASSWORD.format("/proc/nowhere"),
]


@pytest.mark.parametrize("uri", AWAY)
@pytest.mark.parametrize("step", ["status", "train"])
def test_messages_about_a_store_that_is_away_have_no_password(workplace, monkeypatch, capsys, uri, step):
    workplace.uri = uri
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    workplace.run(step, **(TRAIN if step == "train" else {}))
    said = "".join(capsys.readouterr())
    assert said.strip()
    assert "hunter2" not in said


def test_no_password_is_stored_or_printed_and_sync_takes_it_from_the_environment(workplace, monkeypatch, capsys):
    plain, workplace.uri = workplace.uri, WITH_PASSWORD.format(workplace.folder)

    def fail(*_):
        raise RuntimeError(f"(Background on this error at: {workplace.uri})")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.steps.train._train", fail)
        with pytest.raises(RuntimeError):
            workplace.run("train", storage="mysql://me:hunter2@host/studies", **TRAIN)
        patch.setattr("pipeline.tracking.journal.Outbox.send_next", lambda outbox: False)
        patch.setattr("pipeline.tracking.store.PATIENCE_SECONDS", 0)
        with pytest.raises(RuntimeError):
            workplace.run("train", **TRAIN)
    capsys.readouterr()
    workplace.uri = plain
    assert workplace.run("sync") == 1
    assert "its password is not stored on this disk; set MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert b"entries.jsonl" in contents(workplace)
    assert b"hunter2" not in contents(workplace)
    workplace.uri = WITH_PASSWORD.format(workplace.folder)
    assert workplace.run("sync") == 0
    assert "hunter2" not in "".join(capsys.readouterr())
    failed, other = workplace.runs("train")
    for run in (failed, other):
        assert "***" in run.data.tags["error"]
        assert "traceback.txt" in workplace.artifacts(run.info.run_id)
    assert other.data.params["storage"] == "mysql://me:***@host/studies"
    assert b"traceback.txt" in contents(workplace)
    assert b"hunter2" not in contents(workplace)


def contents(workplace):
    """Names and bytes of all files in a workplace except decoded images."""
    files = [path for path in workplace.folder.rglob("*") if path.is_file() and path.suffix != ".npy"]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


class Drip(BaseHTTPRequestHandler):
    """A handler that answers one byte at a time, so fast that no socket timeout ends the connection."""

    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                self.wfile.write(b" ")
                time.sleep(0.1)

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("step", ["status", "train"])
def test_a_server_that_sends_single_bytes_is_given_up(workplace, monkeypatch, capsys, step):
    monkeypatch.setattr(deadline, "SECONDS", 1.0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Drip) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        workplace.uri = f"http://127.0.0.1:{http.server_port}"
        begun = time.monotonic()
        assert workplace.run(step, **(TRAIN if step == "train" else {})) == 2
        assert time.monotonic() - begun < 10
        http.shutdown()
    assert f"error: tracking store {workplace.uri}: no complete answer within 1 s" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"])
def test_an_empty_variable_counts_as_unset(place, variable, monkeypatch):
    monkeypatch.setenv(variable, "")
    with lifecycle.start("train", "test") as run:
        pass
    stored = place.client.get_run(run.id)
    assert (stored.info.experiment_id, stored.info.run_name) == ("0", "test")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("x" * 600, "'name' exceeds the maximum length of 500 characters"), ("#1", "")],
)
def test_a_new_experiment_is_created_or_refused_with_the_reason(place, name, reason, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    if reason:
        with pytest.raises(ValueError, match=f"^tracking store {place.uri}: {reason}$"):
            store.experiment_id()
    else:
        assert place.client.get_experiment(store.experiment_id()).name == name


def test_messages_about_a_moved_store_say_where_it_looks_and_what_to_do(tmp_path, monkeypatch, capsys):
    before, now = tmp_path / "my work", tmp_path / "moved here"
    before.mkdir()
    monkeypatch.chdir(before)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    mlflow.set_tracking_uri(None)
    with lifecycle.start("train", "test") as run:
        run.params({"epochs": 3})
    assert capsys.readouterr().err == ""
    before.rename(now)
    monkeypatch.chdir(now)
    mlflow.set_tracking_uri(f"sqlite:///{now}/mlflow.db")
    try:
        with pytest.raises(ValueError, match="if the store was moved, move it back, or type `mkdir") as refused:
            store.read_json(run.id, "params.json", tmp_path)
        assert f"expects them in {before}/mlruns/0, which does not exist" in str(refused.value)
        with lifecycle.start("train", "again") as again:
            again.params({"epochs": 3})
        assert f"in {before}/mlruns/0, which does not exist: " in capsys.readouterr().err
        for _ in range(2):  # first with the advice if the old folder was created again, then with the one if it was not
            with pytest.raises(ValueError, match="has no artifact params") as refused:
                store.read_json(run.id, "params.json", tmp_path)
            advice = str(refused.value).split("`")[1]
            subprocess.run(advice, shell=True, check=True)
            assert store.read_json(run.id, "params.json", tmp_path) == {"epochs": 3}
            shutil.rmtree(before)
    finally:
        mlflow.set_tracking_uri(None)


def test_an_interrupted_run_is_found_behind_more_finished_ones_than_a_search_returns(workplace, monkeypatch):
    client = workplace.client
    wanted = client.create_run("0", tags={"step": "train"}).info.run_id
    client.set_terminated(wanted, "KILLED")
    for _ in range(3):
        client.set_terminated(client.create_run("0", tags={"step": "train"}).info.run_id, "FINISHED")
    monkeypatch.setattr(MlflowClient, "search_runs", functools.partialmethod(MlflowClient.search_runs, max_results=2))
    mlflow.set_tracking_uri(workplace.uri)
    try:
        assert [run.info.run_id for run in store.unfinished_runs("train")] == [wanted]
    finally:
        mlflow.set_tracking_uri(None)


@pytest.mark.parametrize("place", ["nowhere://photos", "s3://photos/of/cats"])
def test_artifacts_that_this_machine_cannot_read_are_one_line(workplace, monkeypatch, capsys, place):
    monkeypatch.setitem(sys.modules, "botocore", None)  # as on a machine without the library of the storage
    experiment_id = workplace.client.create_experiment("photos", artifact_location=place)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "photos")
    for step, status, named in (("train", "KILLED", "resume"), ("evaluate", "FINISHED", "run_id")):
        kind = "seeds" if status == "KILLED" else "train"
        run_id = workplace.client.create_run(experiment_id, tags={"step": kind}).info.run_id
        workplace.client.set_terminated(run_id, status)
        assert workplace.run(step, **{named: run_id}) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: run {run_id}: its artifacts cannot be listed (")
        assert ("botocore" if place.startswith("s3") else "nowhere") in line


def test_a_search_that_the_store_refuses_is_one_line(workplace, monkeypatch, capsys):
    def refuse(*_, **__):
        raise MlflowException("you may not search here", PERMISSION_DENIED)

    monkeypatch.setattr(MlflowClient, "search_runs", refuse)
    assert workplace.run("evaluate") == 2
    assert capsys.readouterr().err.endswith(f"error: tracking store {workplace.uri}: you may not search here\n")


def test_the_advice_for_a_full_disk_names_no_file_that_is_finished_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    kept = disk.run_folder("abc") / ".state.safetensors.1.partial"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(2**20))
    found = disk.unfinished
    monkeypatch.setattr(disk, "unfinished", lambda folder: [folder / "abc" / ".gone.1.partial", *found(folder)])
    advice = machine.advice(OSError(errno.ENOSPC, "No space left on device"), "abc")
    assert f"where unfinished files take 1.0 MiB: {kept}; then continue" in advice
