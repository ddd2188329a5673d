"""The commands that the program prints open the right store, and the command line accepts them."""

import shlex

import mlflow
import pytest

from pipeline.__main__ import command_line
from pipeline.settings import command
from pipeline.tracking import lifecycle
from tests.conftest import PROJECT

OF_MAKE_UI = f"sqlite:///{PROJECT}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "folder", "end"),
    [
        (OF_MAKE_UI, PROJECT, f"Tracked in {OF_MAKE_UI}, run 1. Look at it with: make ui"),
        ("", PROJECT, f"Tracked in {OF_MAKE_UI}, run 1. Look at it with: make ui"),
        (OF_MAKE_UI, PROJECT / "tests", f"with: mlflow ui --backend-store-uri {OF_MAKE_UI}"),
        ("sqlite:////a b/mlflow.db", PROJECT, "with: mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'"),
        ("/kept@home/mlruns", PROJECT, "with: mlflow ui --backend-store-uri /kept@home/mlruns"),
        ("http://127.0.0.1:5000", PROJECT, "Look at it at http://127.0.0.1:5000"),
        ("https://me:secret@mlflow.org/of/us", PROJECT, "Look at it at https://me:***@mlflow.org/of/us"),
        ("postgresql://me:secret@host/runs", PROJECT, "--backend-store-uri 'postgresql://me:***@host/runs'"),
        ("postgresql://host/runs?user=me&password=secret", PROJECT, "'postgresql://host/runs?user=me&password=***'"),
    ],
)
def test_the_line_about_a_run_names_its_store(uri, folder, end, monkeypatch):
    mlflow.set_tracking_uri(None)  # other tests may have set it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(folder)
    line = lifecycle.where_to_look("1")
    assert line.endswith(end)
    assert "secret" not in line


def test_the_command_line_accepts_a_printed_command():
    words = shlex.split(command("train", from_study="a study; rm -rf ~"))
    assert words[:3] == ["python", "-m", "pipeline"]
    taken = command_line().commands[words[3]].make_context(words[3], words[4:])
    assert taken.params["from_study"] == "a study; rm -rf ~"
