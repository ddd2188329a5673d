"""A store that cannot be used, and what is deleted there, is one line and exit status 2."""

import sqlite3
import subprocess
import time

import mlflow
import pytest

from pipeline.resume import candidates
from pipeline.tracking import store
from tests.conftest import PROJECT, Workplace

TRAIN = {"experiment": "none", "limit_train": 300, "max_lr": 0.01}


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


def refusal(workplace, step="train", environment=None, **params):
    """What a command says that is refused."""
    done = subprocess.run(
        workplace.command(step, **params),
        cwd=workplace.folder,
        env={**workplace.environment, "PYTHONPATH": str(PROJECT), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_an_address_without_its_scheme(workplace):
    line = refusal(workplace, environment={"MLFLOW_TRACKING_URI": "localhost:5000"}, **TRAIN)
    assert line.startswith("error: tracking store localhost:5000: ")


def test_a_database_of_another_version(workplace):
    with sqlite3.connect(workplace.folder / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    assert "tracking store sqlite:///" in refusal(workplace, **TRAIN)


def test_a_database_that_may_only_be_read_is_refused_at_once(workplace):
    uri = f"sqlite:///file:{workplace.folder}/mlflow.db?mode=ro&uri=true"
    begun = time.monotonic()
    line = refusal(workplace, environment={"MLFLOW_TRACKING_URI": uri}, **TRAIN)
    assert line == f"error: tracking store {uri}: attempt to write a readonly database"
    assert time.monotonic() - begun < store.PATIENCE_SECONDS / 2
    assert workplace.runs() == []


def test_a_run_that_the_store_does_not_know(workplace, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert workplace.run("train", **TRAIN) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: tracking store {workplace.uri}: Run with id={'0' * 32} not found")


def test_a_deleted_experiment(workplace):
    experiment_id = workplace.client.create_experiment("photos")
    workplace.client.delete_experiment(experiment_id)
    line = refusal(workplace, environment={"MLFLOW_EXPERIMENT_NAME": "photos"}, **TRAIN)
    assert f"experiment photos is deleted: `mlflow experiments restore --experiment-id {experiment_id}`" in line


def test_a_deleted_run_is_not_gone_on_with(workplace, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", workplace.environment["XDG_STATE_HOME"])
    run_id = workplace.client.create_run("0", tags={"step": "train"}).info.run_id
    workplace.client.delete_run(run_id)
    mlflow.set_tracking_uri(workplace.uri)
    try:
        with pytest.raises(ValueError, match=f"^resume={run_id}: it is deleted$"):
            candidates.find("train", run_id)
    finally:
        mlflow.set_tracking_uri(None)
