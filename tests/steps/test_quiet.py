"""With `--quiet`, a step prints only errors and its result."""

import json
import logging
from pathlib import Path

import pytest
from PIL import Image

from pipeline import progress

TRAIN = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "epochs": 1, "width": 4}


@pytest.mark.parametrize("words", [["--quiet"], ["--quiet", "true"], ["--quiet=true"]])
def test_a_quiet_training_prints_only_its_result(workplace, capsys, words):
    assert workplace.run("train", *words, **TRAIN, max_lr=0.01) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(":")[0] for line in err.splitlines()] == ["training"]


def test_quiet_false_prints_everything(workplace, capsys):
    assert workplace.run("train", "--quiet", "false", **TRAIN, max_lr=0.01) == 0
    assert "epoch 1/1" in capsys.readouterr().err


def test_a_quiet_experiment_prints_only_its_table(workplace, capsys):
    steps = "train,evaluate"
    assert workplace.run("main", "--quiet", **TRAIN, max_lr=0.01, steps=steps) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if line] == ["digits", "step", "train", "evaluate", "Report:", "Tracked"]
    assert workplace.runs("train")[0].info.run_id in lines[4]


def test_a_quiet_training_prints_its_error(workplace, capsys):
    assert workplace.run("train", "--quiet", **{**TRAIN, "batch_size": 1000}, max_lr=0.01) == 2
    assert capsys.readouterr().err.startswith("error: batch_size=1000")


def test_a_value_other_than_true_or_false_is_refused(workplace, capsys):
    assert workplace.run("train", "--quiet=perhaps", **TRAIN) == 2
    assert "quiet=perhaps" in capsys.readouterr().err


def test_no_run_stores_quiet_as_a_parameter(workplace, tmp_path):
    for run in workplace.runs("train"):
        assert "quiet" not in run.data.params
        file = workplace.client.download_artifacts(run.info.run_id, "params.json", str(tmp_path))
        assert "quiet" not in json.loads(Path(file).read_text())
    assert len({run.data.tags["recipe"] for run in workplace.runs("train") if run.data.params["seed"] == "0"}) == 1


def test_a_quiet_prediction_prints_its_answer(workplace, capsys, tmp_path):
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
