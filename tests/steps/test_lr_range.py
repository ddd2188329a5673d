"""The range test by short cycles, as a user meets it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from pipeline.steps import lr_range
from pipeline.training.range_test import Suggestion

QUICK = {"experiment": "none", "limit_train": 330, "limit_test": 60, "width": 4, "batch_size": 16, "epochs": 8}
QUICK |= {"model": "resnet9", "optimizer": "sgd"}


def cycles_of(workplace, run, tmp_path):
    return pd.read_csv(workplace.client.download_artifacts(run.info.run_id, "short_cycles.csv", str(tmp_path)))


def test_a_training_takes_the_rate_of_short_cycles_and_says_what_they_cost(workplace, tmp_path, capsys):
    assert workplace.run("train", **QUICK, watch_images=0) == 0
    err = capsys.readouterr().err
    (test,) = workplace.runs("lr_range")
    cycles = cycles_of(workplace, test, tmp_path)
    numbers = test.data.metrics
    assert f"range test: at most 6 short cycles of {numbers['lr_range/cycle_updates']:.0f} updates, 47% of" in err
    assert len(cycles) == numbers["lr_range/cycles"] >= 3
    assert cycles["lr"].is_monotonic_increasing and cycles["accuracy"].between(0, 1).all()
    assert numbers["lr_range/low"] <= numbers["lr_range/suggestion"] <= numbers["lr_range/high"]
    (training,) = workplace.runs("train")
    assert float(training.data.params["max_lr"]) == numbers["lr_range/suggestion"]
    assert {"lr_range.png", "short_cycle_updates.csv"} <= workplace.artifacts(test.info.run_id)
    # The fingerprint of a recipe contains the number of epochs, and not the average of weights.
    assert workplace.run("train", **QUICK, ema_decay=0.9) == 0
    assert len(workplace.runs("lr_range")) == 1
    assert workplace.run("train", **{**QUICK, "epochs": 9}) == 0
    assert len(workplace.runs("lr_range")) == 2
    assert "recipe, rule or ladder: epochs 8 there, 9 here" in capsys.readouterr().err


def test_an_interrupted_range_test_does_not_repeat_its_cycles(workplace, tmp_path, monkeypatch, capsys):
    quick = {**QUICK, "seed": 1}
    with monkeypatch.context() as patch:
        patch.setattr(lr_range, "_run_cycle", interrupted_at(lr_range._run_cycle, 2))
        assert workplace.run("lr_range", **quick) == 130
    stopped = workplace.runs("lr_range")[0]
    capsys.readouterr()
    assert workplace.run("lr_range", **quick) == 0
    err = capsys.readouterr().err
    assert err.count(f"finished by run {stopped.info.run_id}, not repeated") == 1
    again = cycles_of(workplace, workplace.runs("lr_range")[0], tmp_path)
    assert workplace.run("lr_range", **quick, weight_decay=0) == 0  # another recipe: all cycles are its own
    assert "not repeated" not in capsys.readouterr().err
    assert err.count("validation accuracy") == len(again) - 1 >= 2


def interrupted_at(train, call):
    """`train`, which is interrupted in its call number `call`."""
    calls = []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == call:
            raise KeyboardInterrupt
        return train(*given)

    return interrupted


def test_a_range_test_names_ignored_parameters_and_takes_a_usual_rate_if_updates_are_few(workplace, capsys):
    assert workplace.run("lr_range", **{**QUICK, "epochs": 2}, max_lr=0.3, ladder_steps=50, num_repeats=2) == 0
    err = capsys.readouterr().err
    assert "max_lr=0.3 of the command or the experiment file is ignored" in err
    assert "ladder_steps, num_repeats: ignored, because lr_rule=cycles climbs no ladder" in err
    # 38 updates are too few to compare rates.
    assert "warning: 38 updates are too few for short cycles: a usual rate is taken, untested" in err
    (test, *_) = workplace.runs("lr_range")
    assert test.data.metrics["lr_range/suggestion"] == 0.1 * 16 / 128
    file = workplace.client.download_artifacts(test.info.run_id, "lr_range.json", str(workplace.folder))
    found = json.loads(Path(file).read_text())
    assert found["rule"] == "usual" and found["doubt"]


@pytest.mark.parametrize(("spread", "doubt"), [(None, ""), (1.9, ""), (3.0, "the ladders disagree by a factor of 3.0")])
def test_ladders_that_disagree_give_a_rate_with_a_doubt(spread, doubt):
    choice = lr_range._as_choice(Suggestion(0.1, "", {}, spread))
    assert choice.lr == 0.1
    assert choice.doubt.startswith(doubt) and bool(choice.doubt) == bool(doubt)
