"""What a run logs is harmless, whoever chose the names in it."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pipeline.tracking import runs
from tests.conftest import Workplace


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    place = Workplace(tmp_path)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, place.environment[name])
    mlflow.set_tracking_uri(place.uri)
    yield place
    mlflow.set_tracking_uri(None)


def test_a_table_keeps_its_numbers_and_starts_no_formula(workplace, tmp_path):
    table = pd.DataFrame({"name": ["=1+1", None, "-0.5"], "loss": [-0.5, 0.25, None], "@SUM(A1)": ["a\rb", "c", "d"]})
    with runs.start("train", "test") as run:
        run.table("table.csv", table)
        run.table("empty.csv", table.head(0))
        run.table("twice.csv", pd.DataFrame([[1, "=1"]], columns=["=a", "=a"]))
    content = {
        name: Path(workplace.client.download_artifacts(run.id, f"{name}.csv", str(tmp_path))).read_text()
        for name in ("table", "empty", "twice")
    }
    assert content == {
        "table": "name,loss,'@SUM(A1)\n'=1+1,-0.5,a\\rb\n,0.25,c\n-0.5,,d\n",
        "empty": "name,loss,'@SUM(A1)\n",
        "twice": "'=a,'=a\n1,'=1\n",
    }


def test_a_description_holds_no_html(workplace):
    with runs.start("train", "test") as run:
        run.describe("study <b>", "**Sweep** of <script>alert(1)</script>\n\nsecond \x1b[31mline")
    note = workplace.client.get_run(run.id).data.tags["mlflow.note.content"]
    assert note == "**Sweep** of &lt;script&gt;alert(1)&lt;/script&gt;\n\nsecond \\x1b[31mline"
