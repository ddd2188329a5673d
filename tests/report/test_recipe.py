"""The recipe in a report: a command that repeats the run, and the parameters that differ from their defaults."""

import shlex
from itertools import pairwise

import pytest

from pipeline.params import STEPS
from pipeline.report import recipe
from pipeline.report.record import Record, StepRecord
from pipeline.settings import resolve


def step(kind, **params):
    given = STEPS[kind](experiment="none", **params)
    return StepRecord(kind, "0" * 32, "a name", 1.0, given.model_dump(mode="json"), {}, {"train.run_id": "1" * 32})


def repeated(record, best_of=None):
    """The parameters of the run that the command in the report starts."""
    words = shlex.split(recipe.command(record))
    assert words[:3] == ["mlflow", "run", "."]
    flags = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "-P")
    entry = words[words.index("-e") + 1] if "-e" in words else "main"
    return resolve(entry, flags, best_of)


def test_the_command_repeats_the_same_parameters():
    given = {"epochs": 3, "max_lr": 0.1, "data_dir": "a folder; rm -rf 'x'", "space": {"patch_size": [2, 4]}}
    run = step("main", **given, steps="train,evaluate")
    again = repeated(Record(run, {}))
    assert again == STEPS["main"](experiment="none", **given, steps="train,evaluate")
    run = step("train", width=16, flip="on")
    assert repeated(Record(run, {"train": run})) == STEPS["train"](experiment="none", width=16, flip="on")


@pytest.mark.parametrize("kind", ["main", "lr_range", "sweep", "train"])
def test_the_command_for_defaults_uses_no_experiment_file(kind):
    assert repeated(Record(step(kind), {})) == STEPS[kind](experiment="none")


def test_the_command_has_the_values_that_a_study_had_then_and_not_its_name():
    run = step("train", from_study="a study", max_lr=0.3)  # its best width was the default
    again = repeated(Record(run, {"train": run}), best_of=lambda name, storage: {"max_lr": 0.1, "width": 16})
    assert again == STEPS["train"](experiment="none", max_lr=0.3)


def test_an_evaluation_is_repeated_on_the_same_training():
    run = step("evaluate", views=6)
    assert recipe.command(Record(run, {})) == f"mlflow run . -e evaluate -P views=6 -P run_id={'1' * 32}"


def test_no_tag_can_inject_a_command_into_the_line():
    run = step("evaluate")
    run.tags["train.run_id"] = "x; rm -rf ~"
    assert shlex.split(recipe.command(Record(run, {})))[-1] == "run_id=x; rm -rf ~"


def test_parameters_that_differ_from_the_default_are_marked():
    listed = {each.name: each for each in recipe.parameters(step("train", width=16, checkpoint_minutes=10))}
    assert set(listed) == set(STEPS["train"].model_fields)
    assert {name for name, each in listed.items() if each.differs} == {"experiment", "width"}
    assert (listed["width"].value, listed["width"].default) == ("16", "64")
    assert listed["width"].meaning


def test_parameters_of_another_version_are_shown_but_not_in_the_command():
    run = step("train")
    record = Record(StepRecord(**{**vars(run), "params": {"no_more": "<b>", "width": 16}}), {})
    assert [each.default for each in recipe.parameters(record.run)] == ["", "64"]
    assert recipe.command(record) == "mlflow run . -e train -P experiment=none -P width=16"


@pytest.mark.parametrize(
    ("name", "value", "mailed"),
    [
        ("data_dir", "/home/me/My Pictures", "My Pictures"),
        ("data_dir", "/home/me/photos/", "photos/"),
        ("labels", "/home/me/labels.csv", "labels.csv"),
        ("labels", "~me/labels.csv", "labels.csv"),
        ("weights", "/home/me/w.safetensors", "w.safetensors"),
        ("storage", "sqlite:////home/me/optuna.db", "sqlite:///optuna.db"),
        ("storage", "postgresql://me:hunter2@host/studies", "postgresql://me:***@host/studies"),
    ],
)
def test_a_report_names_no_folder_of_this_disk_and_no_password(name, value, mailed):
    run = step("train")
    record = Record(StepRecord(**{**vars(run), "params": {name: value}}), {})
    (listed,) = recipe.parameters(record.run)
    assert listed.value == mailed
    assert "/me" not in recipe.command(record)
    assert "hunter2" not in recipe.command(record)
