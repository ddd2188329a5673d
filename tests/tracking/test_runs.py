"""What is logged is in the store, once and harmless, whoever else writes there and whoever chose the names."""

import contextlib
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pipeline.tracking import runs, store
from pipeline.tracking.journal import replay
from pipeline.tracking.sending import Sender
from tests.conftest import Workplace

EPOCHS = 25


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = Workplace(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", place.environment["XDG_STATE_HOME"])
    mlflow.set_tracking_uri(place.uri)
    yield place
    mlflow.set_tracking_uri(None)


def write(folder: Path, uri: str, number: int) -> str:
    """Logs a run as fast as it can. Returns its id."""
    with contextlib.chdir(folder):
        store.use(uri)
        with runs.start("train", f"writer {number}") as run:
            for epoch in range(1, EPOCHS + 1):
                run.metrics({"loss": number + epoch, "accuracy": epoch}, step=epoch)
                run.tags({f"epoch.{epoch}": number})
            run.text("told.txt", str(number))
            return run.id


@pytest.mark.parametrize("num_writers", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_that_write_to_one_sqlite_store_at_a_time_lose_nothing(place, num_writers):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_writers, mp_context=spawn) as pool:
        ids = list(pool.map(write, [place.folder] * num_writers, [place.uri] * num_writers, range(num_writers)))
    for number, run_id in enumerate(ids):
        run = place.client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert {f"epoch.{epoch}" for epoch in range(1, EPOCHS + 1)} <= run.data.tags.keys()
        points = place.client.get_metric_history(run_id, "loss")
        assert [(point.step, point.value) for point in points] == [(e, number + e) for e in range(1, EPOCHS + 1)]
        assert place.artifacts(run_id) == {"told.txt"}


def test_an_entry_sent_twice_is_there_once(place):
    with runs.start("train", "twice") as run:
        run.metrics({"loss": 1.0}, step=1)
        run.params({"epochs": 3})
        run.dataset("digits", "0" * 32, "data", "training")
        run.text("folder/told.txt", "once")
        run.flush()
        (journal,) = place.folder.glob("state/classifier-pipeline/runs/*/journal-*")
        again = Path(shutil.copytree(journal, place.folder / "again"))
    (again / "sent").unlink()  # as if it had been killed before it could note what was taken
    assert replay(again, Sender(run.id, place.uri)) == 5
    stored = place.client.get_run(run.id)
    assert len(place.client.get_metric_history(run.id, "loss")) == 1
    assert stored.data.params == {"epochs": "3"}
    assert len(stored.inputs.dataset_inputs) == 1
    assert place.artifacts(run.id) == {"folder/told.txt", "params.json"}


def test_a_table_keeps_its_numbers_and_starts_no_formula(place):
    table = pd.DataFrame({"name": ["=1+1", None, "-0.5"], "loss": [-0.5, 0.25, None], "@SUM(A1)": ["a\rb", "c", "d"]})
    with runs.start("train", "test") as run:
        run.table("table.csv", table)
        run.table("empty.csv", table.head(0))
        run.table("twice.csv", pd.DataFrame([[1, "=1"]], columns=["=a", "=a"]))
    content = {
        name: Path(place.client.download_artifacts(run.id, f"{name}.csv", str(place.folder))).read_text()
        for name in ("table", "empty", "twice")
    }
    assert content == {
        "table": "name,loss,'@SUM(A1)\n'=1+1,-0.5,a\\rb\n,0.25,c\n-0.5,,d\n",
        "empty": "name,loss,'@SUM(A1)\n",
        "twice": "'=a,'=a\n1,'=1\n",
    }


def test_a_description_holds_no_html(place):
    with runs.start("train", "test") as run:
        run.describe("study <b>", "**Sweep** of <script>alert(1)</script>\n\nsecond \x1b[31mline")
    note = place.client.get_run(run.id).data.tags["mlflow.note.content"]
    assert note == "**Sweep** of &lt;script&gt;alert(1)&lt;/script&gt;\n\nsecond \\x1b[31mline"
