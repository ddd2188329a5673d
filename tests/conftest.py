"""Workplaces of a user, each with its own store, and a PostgreSQL server: many tests need them."""

import contextlib
import functools
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

# Networks this small gain nothing from more threads, and parallel tests get slower. Equality to the bit holds only on
# CPUs.
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import mlflow
import pytest
from mlflow import MlflowClient

from deploy.postgres import Missing, Postgres
from pipeline.__main__ import main
from pipeline.tracking import journal

PROJECT = Path(__file__).resolve().parent.parent

MLFLOW_VARIABLES = {
    f"MLFLOW_{name}" for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME", "LOGGING_LEVEL")
}

# Stores are in memory if there is room: SQLite waits for the disk at every commit, and these tests commit often.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@functools.cache
def new_store() -> sqlite3.Connection:
    """A database that MLflow has made, in memory. MLflow takes a second to make one, and most tests need one."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        with contextlib.closing(sqlite3.connect("mlflow.db")) as on_disk:
            on_disk.backup(in_memory := sqlite3.connect(":memory:"))
    return in_memory


class Workplace:
    """A user's working directory with its own tracking store, and the commands that the user runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.experiment_id = "0"
        self.uri = f"sqlite:///{folder}/mlflow.db"
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
            new_store().backup(database)
            database.execute("UPDATE experiments SET artifact_location = ?", [f"{folder}/mlruns/0"])
            database.commit()
        with contextlib.chdir(folder):  # new experiments have their artifacts below it
            self.client = MlflowClient(self.uri)
            self.client.search_experiments()
        # MLflow writes the store of an earlier test to os.environ.
        self.environment = {name: value for name, value in os.environ.items() if name not in MLFLOW_VARIABLES} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def mlflow_run(self, entry_point: str, **params: object) -> subprocess.CompletedProcess:
        """Runs `mlflow run PROJECT -e entry_point -P name=value ...` until it ends."""
        started = self.start_mlflow_run(entry_point, **params)
        out, err = started.communicate(timeout=300)
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def start_mlflow_run(self, entry_point: str, **params: object) -> subprocess.Popen:
        """Starts the same command."""
        flags = [word for name, value in params.items() for word in ("-P", f"{name}={value}")]
        return subprocess.Popen(
            ["mlflow", "run", str(PROJECT), "--env-manager", "local", "-e", entry_point, *flags],
            cwd=self.folder,
            env={**self.environment, "PYTHONWARNINGS": "default"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, step: str, *words: object, **params: object) -> list[str]:
        """The words of `python -m pipeline step --name value ... word ...`."""
        flags = [word for name, value in params.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "pipeline", step, *flags, *map(str, words)]

    def start(
        self, step: str, module: str = "", *, start_new_session: bool = False, **params: object
    ) -> subprocess.Popen:
        """Starts `python -m pipeline step --name value ...`, or `python -m module --name value ...`."""
        words = self.command(step, **params)
        return subprocess.Popen(
            [sys.executable, "-m", module, *words[4:]] if module else words,
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=start_new_session,
        )

    def run(self, step: str, *words: object, **params: object) -> int:
        """Runs `python -m pipeline step --name value ... word ...` in this process. Returns the exit status."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
                patch.setenv(name, self.environment[name])
            mlflow.set_tracking_uri(self.uri)
            try:
                return main(self.command(step, *words, **params)[3:])
            finally:
                mlflow.set_tracking_uri(None)

    def runs(self, step: str | None = None) -> list:
        """The stored runs, newest first."""
        query = f"tags.step = '{step}'" if step else ""
        return list(self.client.search_runs([self.experiment_id], query, order_by=["attributes.start_time DESC"]))

    def artifacts(self, run_id: str, folder: str = "") -> set[str]:
        """The paths of a run's artifact files."""
        found: set[str] = set()
        for item in self.client.list_artifacts(run_id, folder or None):
            found |= self.artifacts(run_id, item.path) if item.is_dir else {item.path}
        return found


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """A test does not see the unsent journals of earlier tests."""
    yield
    journal.left_behind.clear()


@pytest.fixture(scope="session", autouse=True)
def environment_of_its_own(tmp_path_factory):
    """The tests do not use the folders, the store and the MLflow settings of the user who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in MLFLOW_VARIABLES:
            patch.delenv(name, raising=False)
        for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A workplace that the tests of a file share."""
    return Workplace(tmp_path_factory.mktemp("workplace"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workplace for one test. This process runs in its folder and uses its store, as a step does."""
    place = Workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", place.environment["XDG_STATE_HOME"])
    mlflow.set_tracking_uri(place.uri)
    yield place
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server that the tests share."""
    with tempfile.TemporaryDirectory(prefix="pipeline-postgres-", ignore_cleanup_errors=True) as folder:
        try:
            server = Postgres(Path(folder), free_port(), settings="-c fsync=off")
        except Missing as missing:
            pytest.skip(str(missing))
        with server:
            yield server


@pytest.fixture
def postgres(postgres_server):
    """The address of an empty PostgreSQL database."""
    return postgres_server.new_database(f"tests_{uuid.uuid4().hex}")
