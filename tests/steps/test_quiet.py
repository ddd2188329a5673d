"""With `--quiet`, a step prints only errors and its result."""

import json
import logging
from pathlib import Path

import pytest

from pipeline import progress

TRAIN = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "epochs": 1, "width": 4}


@pytest.fixture(autouse=True)
def made(workplace):
    workplace.runs()  # makes the store


@pytest.mark.parametrize("words", [["--quiet"], ["--quiet", "true"], ["--quiet=true"]])
def test_a_training_says_its_result_alone(workplace, capsys, words):
    assert workplace.run("train", *words, **TRAIN, max_lr=0.01) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(":")[0] for line in err.splitlines()] == ["training"]


def test_with_false_it_is_as_without(workplace, capsys):
    assert workplace.run("train", "--quiet", "false", **TRAIN, max_lr=0.01) == 0
    assert "epoch 1/1" in capsys.readouterr().err


def test_an_experiment_says_its_table(workplace, capsys):
    steps = "train,evaluate"
    assert workplace.run("main", "--quiet", **TRAIN, max_lr=0.01, steps=steps) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if line] == ["digits", "step", "train", "evaluate", "Report:", "Tracked"]
    assert workplace.runs("train")[0].info.run_id in lines[4]


def test_errors_are_said(workplace, capsys):
    assert workplace.run("train", "--quiet", **{**TRAIN, "batch_size": 1000}, max_lr=0.01) == 2
    assert capsys.readouterr().err.startswith("error: batch_size=1000")


def test_what_is_no_truth_value_is_refused(workplace, capsys):
    assert workplace.run("train", "--quiet=perhaps", **TRAIN) == 2
    assert "quiet=perhaps" in capsys.readouterr().err


def test_it_is_part_of_no_run(workplace, tmp_path):
    for run in workplace.runs("train"):
        assert "quiet" not in run.data.params
        file = workplace.client.download_artifacts(run.info.run_id, "params.json", str(tmp_path))
        assert "quiet" not in json.loads(Path(file).read_text())
    assert len({run.data.tags["recipe"] for run in workplace.runs("train") if run.data.params["seed"] == "0"}) == 1


def test_answers_are_given(workplace, capsys, tmp_path):
    from PIL import Image

    Image.new("RGB", (20, 20)).save(tmp_path / "true.png")
    assert workplace.run("predict", "--quiet", tmp_path / "true.png") == 0
    out, err = capsys.readouterr()
    assert out.startswith(str(tmp_path / "true.png"))
    assert err == ""


def test_quiet_inside_quiet_stays_quiet():
    with progress.quiet():
        with progress.quiet():
            pass
        assert not logging.getLogger("pipeline").isEnabledFor(logging.WARNING)
    assert logging.getLogger("pipeline").isEnabledFor(logging.WARNING)
