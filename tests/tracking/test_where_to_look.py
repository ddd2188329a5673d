"""What a person is told to type shows the store, and finds the project, that the run was of."""

import shlex

import mlflow
import pytest

from pipeline.__main__ import command_line
from pipeline.settings import command
from pipeline.tracking import lifecycle
from tests.conftest import PROJECT

OF_MAKE_UI = f"sqlite:///{PROJECT}/mlflow.db"


@pytest.mark.parametrize(
    ("uri", "stands_in", "told"),
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
def test_a_person_is_led_to_the_store_that_has_the_run(uri, stands_in, told, monkeypatch):
    mlflow.set_tracking_uri(None)  # whatever other tests have left
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(stands_in)
    line = lifecycle.where_to_look("1")
    assert line.endswith(told)
    assert "secret" not in line


def test_a_command_is_one_that_the_command_line_takes():
    words = shlex.split(command("train", from_study="a study; rm -rf ~"))
    assert words[:3] == ["python", "-m", "pipeline"]
    taken = command_line().commands[words[3]].make_context(words[3], words[4:])
    assert taken.params["from_study"] == "a study; rm -rf ~"
