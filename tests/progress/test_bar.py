"""A whole experiment in a real terminal: one bar, and a table at the end."""

import re

import pytest

from tests.conftest import PROJECT, Workplace
from tests.terminal import COLUMNS, Terminal

EXPERIMENT = {
    "experiment": "none",
    "limit_train": 700,
    "limit_test": 60,
    "width": 8,
    "batch_size": 8,
    "epochs": 10,  # a pace is shown after two seconds, and the training must last longer on a fast processor
    "lr_rule": "steepest",
    "ladder_steps": 60,
    "num_repeats": 1,
    "num_images": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(terminal of a finished experiment, its workplace)."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    environment = {**place.environment, "PYTHONPATH": str(PROJECT)}
    with Terminal(place.command("main", **EXPERIMENT), cwd=place.folder, env=environment) as terminal:
        terminal.read(300)
        assert terminal.process.returncode == 0, terminal.text
    return place, terminal


@pytest.fixture(scope="module")
def bars(finished):
    return [line for line in finished[1].drawn if re.match(r"\d/4 .*\|.*left", line)]


def test_one_bar_counts_all_steps_in_order(bars):
    seen = list(dict.fromkeys(bar.split("|")[0].strip() for bar in bars))
    assert seen == ["1/4 lr_range", "2/4 train", "3/4 evaluate", "4/4 explain"]


def test_the_bar_is_as_wide_as_the_terminal(bars):
    assert {len(bar) for bar in bars} <= {COLUMNS - 1, COLUMNS}


def test_the_time_left_includes_the_training_and_unknown_steps_are_counted(bars):
    assert "4 steps left" in bars[0]
    of_training = [re.search(r"(\d+):(\d\d) \+ 2 steps left  epoch (\S+)/10", bar) for bar in bars]
    shown = [(60 * int(found[1]) + int(found[2]), float(found[3])) for found in of_training if found]
    assert shown
    assert [epoch for _, epoch in shown] == sorted(epoch for _, epoch in shown)
    assert shown[-1][0] < 60
    assert "1 step left" in bars[-1]


def test_the_end_shows_a_table_of_steps_and_no_bar(finished):
    place, terminal = finished
    end = terminal.text.rpartition("step      seconds")[2]
    assert "|" not in end.partition("Report:")[0]
    for step in ("lr_range", "train", "evaluate", "explain"):
        (run,) = place.runs(step)
        assert re.search(rf"^{step} +[\d.]+  \S", end, re.MULTILINE)
        assert f"run {run.info.run_id}" in end
    assert f"{place.runs('evaluate')[0].data.metrics['test/accuracy']:.2%}" in end
    assert f"run {place.runs('main')[0].info.run_id}. Look at it with: mlflow ui --backend-store-uri {place.uri}" in end


def test_mlflow_prints_no_messages_of_its_own(finished):
    assert " INFO " not in finished[1].text
    assert "WARNING" not in finished[1].text
