"""Finished trainings with what was measured of them on their test split, found by any run that leads to one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.history import lookup
from pipeline.params import TrainParams
from pipeline.settings import command
from pipeline.text import from_cell
from pipeline.tracking import store

# Runs that others stand under.
ABOVE = ("main", "seeds")
CURVES = ("train/loss", "train/accuracy", "valid/loss", "valid/accuracy")
TEXTS, NUMBERS = ["name", "true", "predicted"], ["confidence", "probability_of_true"]
BINS = ["low", "high", "confidence", "accuracy", "count"]


@dataclass(frozen=True)
class Evaluation:
    """A training and an evaluation of it, as its run tells them."""

    run_id: str  # of the evaluation
    train_run_id: str
    params: TrainParams
    checkpoint: str  # whose weights were evaluated: best or last
    tags: dict[str, str]  # of the training
    test_digest: str
    metrics: dict[str, float]
    predictions: pd.DataFrame  # a row per test image: name, true, predicted, confidence, probability_of_true
    reliability: pd.DataFrame  # a row per bin: low, high, confidence, accuracy, count


def find(asked: str) -> list[Evaluation]:
    """What the run `asked` leads to: its evaluation, or the newest of its training or of each training below it.

    Raises ValueError where there is none, saying how to make it, and where one cannot be read.
    """
    run = store.stored_run(asked, "runs")
    step = run.data.tags.get("step")
    if step == "evaluate":
        _check_finished(run)
        return [_read(run)]
    if step in lookup.OF_STEP["train"]:
        _check_finished(run)
        return [_read(_evaluation_of(run))]
    if step not in ABOVE:
        raise ValueError(
            f"runs: {asked} is no training, evaluation or experiment but {step or 'a run of something else'}"
        )
    trainings = [each for each in store.children(asked, "train") if each.info.status == "FINISHED"]
    if not trainings:
        raise ValueError(f"runs: {asked} has no FINISHED training below it")
    return [_read(_evaluation_of(each)) for each in reversed(trainings)]


def epochs(train_run_id: str) -> pd.DataFrame:
    """A row per epoch of a training: epoch, and its losses and accuracies by the names of their metrics."""
    client = store.Client()
    curves = {
        name: pd.Series({point.step: point.value for point in client.get_metric_history(train_run_id, name)})
        for name in CURVES
    }
    there = {name: curve for name, curve in curves.items() if len(curve)}
    return pd.DataFrame(there).rename_axis("epoch").reset_index()


def _check_finished(run: store.StoredRun) -> None:
    if run.info.status != "FINISHED":
        raise ValueError(f"runs: {run.info.run_id} is not FINISHED but {run.info.status}")


def _evaluation_of(training: store.StoredRun) -> store.StoredRun:
    train_run_id = str(training.info.run_id)
    found = store.finished_runs("evaluate", {"train.run_id": train_run_id}, beside=training)
    if not found:
        raise ValueError(f"training {train_run_id} has no evaluation; make one: {_command(train_run_id)}")
    return found[0]


def _command(train_run_id: str) -> str:
    return command("evaluate", run_id=train_run_id)


def _read(run: store.StoredRun) -> Evaluation:
    tags, run_id = run.data.tags, str(run.info.run_id)
    train_run_id = tags.get("train.run_id", "")
    if "test.digest" not in tags:
        raise ValueError(f"evaluation {run_id} is of an earlier version; make another: {_command(train_run_id)}")
    training = store.stored_run(train_run_id, "train.run_id")
    with store.scratch() as folder:
        predictions = _table(run_id, "predictions.csv", folder, TEXTS, NUMBERS)
        reliability = _table(run_id, "reliability.csv", folder, [], BINS)
    return Evaluation(
        run_id,
        train_run_id,
        lookup.params(train_run_id, TrainParams),
        run.data.params.get("checkpoint", "best"),
        training.data.tags,
        tags["test.digest"],
        run.data.metrics,
        predictions,
        reliability,
    )


def _table(run_id: str, name: str, folder: Path, texts: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """Those columns of a run's table, its texts as they were before they became cells.

    Raises ValueError for another table.
    """
    path = store.artifact(run_id, name, folder)
    try:
        table = pd.read_csv(
            path,
            usecols=[*texts, *numbers],
            dtype={**dict.fromkeys(texts, str), **dict.fromkeys(numbers, float)},
            keep_default_na=False,
            na_values={column: [""] for column in numbers},
        )
        return table.assign(**{column: table[column].map(from_cell) for column in texts})
    except (OSError, ValueError):
        raise ValueError(f"run {run_id}: {name} is not the table that was written there") from None
