"""A database is found by its address, created once, and refused within seconds if it cannot be used."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import pytest

from pipeline.history import status
from pipeline.sweep import study
from pipeline.tracking import database, lifecycle, store
from tests.conftest import PROJECT


@pytest.fixture(autouse=True)
def store_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    mlflow.set_tracking_uri(None)
    yield
    mlflow.set_tracking_uri(None)


def open_store(uri):
    store.use(uri)
    store.Client().search_experiments()


OPEN = {"store": open_store, "study": study.connect}


def open_together(kind, uri, barrier):
    barrier.wait()
    OPEN[kind](uri)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [3, 6])
@pytest.mark.parametrize("kind", OPEN)
@pytest.mark.parametrize("where", ["sqlite", "postgres"])
def test_processes_that_start_together_create_the_tables_once(where, kind, num_processes, tmp_path, request):
    server = where == "postgres" and request.getfixturevalue("postgres")
    uri = server or f"sqlite:///{tmp_path}/a.db"
    spawn = multiprocessing.get_context("spawn")
    barrier, alone = spawn.Barrier(num_processes), spawn.Barrier(1)
    processes = [spawn.Process(target=open_together, args=(kind, uri, barrier)) for _ in range(num_processes)]
    later = spawn.Process(target=open_together, args=(kind, uri, alone))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    later.start()
    later.join()
    assert [process.exitcode for process in (*processes, later)] == [0] * (num_processes + 1)
    assert [path.name for path in tmp_path.iterdir()] == ([] if server else ["a.db"])


def test_a_process_killed_while_it_creates_the_store_leaves_no_incomplete_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/a.db"
    program = f"from pipeline.tracking import store; store.use({uri!r}); store.Client()"
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(PROJECT)})
    partial = tmp_path / ".a.db.partial"
    while not partial.exists() or not partial.stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a.db").exists()
    open_store(uri)
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.slow
def test_a_process_waits_for_a_store_that_another_program_creates(tmp_path):
    uri = f"sqlite:///{tmp_path}/a.db"
    program = f"import mlflow; mlflow.MlflowClient({uri!r}).search_experiments()"
    process = subprocess.Popen([sys.executable, "-c", program])
    while not (tmp_path / "a.db").exists():
        assert process.poll() is None
        time.sleep(0.01)
    open_store(uri)
    assert process.wait() == 0


FOLDERS = ["my größe 猫", "50% off a%20b", "what? a+b&c #1"]


@pytest.mark.parametrize("name", FOLDERS)
def test_the_default_store_is_found_in_a_folder_of_any_name(name, tmp_path, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(lifecycle, "PROJECT", folder)
    assert not store.is_made()
    with lifecycle.start("train", "under way") as run:
        assert [each.run.info.run_id for each in status.runs()] == [run.id]
        assert lifecycle.where_to_look(run.id).endswith("with: make ui")
        study.connect(study.storage_url("auto"))
    assert {path.name for path in folder.iterdir()} >= {"mlflow.db", "optuna.db"}
    if store.uri() == f"sqlite:///{folder}/mlflow.db":  # otherwise MLflow also creates a folder with the encoded name
        assert {path.name for path in tmp_path.iterdir()} == {name, "state"}


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///a.db", "a.db"),
        ("sqlite+pysqlite:///a.db", "a.db"),
        ("sqlite:////x/a%20b/c.db", "/x/a b/c.db"),
        ("sqlite:////x/a.db?timeout=60", "/x/a.db"),
        ("sqlite:///file:/x/a%20b.db?mode=ro&uri=true", "/x/a b.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://me@host/runs", None),
        ("http://127.0.0.1:5000", None),
        ("http://127.0.0.1:port", None),
        ("/home/me/mlruns", None),
        ("databricks", None),
    ],
)
def test_the_file_of_a_database_is_found_from_its_address(uri, file):
    assert database.file(uri) == (file and Path(file).resolve())


@pytest.mark.parametrize("name", FOLDERS)
def test_the_address_of_a_file_leads_back_to_the_file(name):
    path = Path("/x") / name / "a.db"
    assert database.file(database.url(path)) == path
    assert database.plain(database.url(path)) == database.url(path)


@contextlib.contextmanager
def silent_server():
    """The port of a server that takes connections but does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("kind", OPEN)
@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:///text.db", "file is not a database"),
        ("sqlite:///cut.db", "malformed|not a database|disk I/O error"),
        ("sqlite:///folder", "unable to open database file"),
        ("sqlite:///text.db/x.db", "Not a directory|File exists"),
        ("sqlite:////proc/x.db", "cannot be created in"),
        ("sqlite:////proc/nope/x.db", r"No such file or directory"),
        ("postgresql+psycopg://me@127.0.0.1:1/runs", "Connection refused"),
        ("postgresql+psycopg://me@127.0.0.1:{silent}/runs", "timeout|timed out"),
        ("mysql+pymysql://me@127.0.0.1/runs", "No module named"),
        ("sqlite+nope:///x.db", "Can't load plugin"),
    ],
)
def test_a_database_that_cannot_be_used_is_refused_within_seconds(kind, uri, reason, tmp_path, monkeypatch):
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    (tmp_path / "text.db").write_text("a note of mine\n" * 100)
    (tmp_path / "folder").mkdir()
    with contextlib.closing(sqlite3.connect(tmp_path / "whole.db")) as whole:
        whole.execute("CREATE TABLE a (b)")
    (tmp_path / "cut.db").write_bytes((tmp_path / "whole.db").read_bytes()[:3000])
    begun = time.monotonic()
    with silent_server() as port, pytest.raises(ValueError, match=reason) as refused:
        OPEN[kind](uri.format(silent=port))
    assert time.monotonic() - begun < 15
    assert len(str(refused.value).splitlines()) == 1


def test_a_process_waits_for_a_busy_database_with_a_message(tmp_path, capsys):
    uri = f"sqlite:///{tmp_path}/a.db"
    open_store(uri)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ends = threading.Timer(1.5, other.rollback)
        ends.start()
        open_store(f"{uri}?timeout=0.2")
        ends.join()
    assert capsys.readouterr().err == "database is locked; trying again for up to 120 s\n"
