"""Reads evaluations of finished trainings. Any related run leads to them: an experiment, a training, an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.history import lookup
from pipeline.params import TrainParams
from pipeline.progress import say
from pipeline.results import dependence
from pipeline.settings import command
from pipeline.text import from_cell
from pipeline.tracking import store

PARENT_STEPS = ("main", "seeds")  # steps whose runs are parents of trainings
TEXTS, NUMBERS = ["name", "true", "predicted"], ["confidence", "probability_of_true"]
GROUP, PIXELS = "group", "pixels"
BINS = ["low", "high", "confidence", "accuracy", "count"]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a training, read from the store."""

    run_id: str  # of the evaluation
    train_run_id: str
    params: TrainParams
    checkpoint: str  # the evaluated weights: best or last
    tags: dict[str, str]  # of the training
    test_digest: str
    metrics: dict[str, float]
    # One row per test image: name, true, predicted, confidence, probability_of_true; group if there are groups; pixels,
    # a hash of them, unless the evaluation is from an earlier version.
    predictions: pd.DataFrame
    reliability: pd.DataFrame  # one row per bin: low, high, confidence, accuracy, count

    @property
    def correct(self) -> np.ndarray:
        """Whether each test image is right: (N,) bool."""
        return (self.predictions["true"] == self.predictions["predicted"]).to_numpy()


def find(asked: str) -> list[Evaluation]:
    """The evaluations for the run `asked`.

    For an evaluation, itself. For a training or an ensemble, the newest one of the best weights or, without one, the
    newest. For an experiment or a series of seeds, the evaluation of each training. Raises ValueError if an evaluation
    is missing, with the command that creates it, or cannot be read.
    """
    run = store.stored_run(asked, "runs")
    step = run.data.tags.get("step")
    if step == "evaluate":
        _check_finished(run)
        return [_read(run)]
    if step in (*lookup.COUNTED_AS["train"], *lookup.COUNTED_BY_ID["train"]):
        _check_finished(run)
        return [_read(_evaluation_of(run))]
    if step not in PARENT_STEPS:
        raise ValueError(
            f"runs: {asked} is a run of {step or 'another program'}; give a training, an evaluation or an experiment"
        )
    trainings = [each for each in store.children(asked, "train") if each.info.status == "FINISHED"]
    if not trainings:
        raise ValueError(f"runs: {asked} has no FINISHED training among its child runs")
    return [_read(_evaluation_of(each)) for each in reversed(trainings)]


def groups_of(found: Sequence[Evaluation]) -> np.ndarray | None:
    """The group of each test image as a number, (N,) int64, if all evaluations in `found` have the same groups.

    None if no evaluation has groups. If some have none or others, the result is None too, and a line says so.
    """
    numbers = [dependence.numbers(each.predictions.get(GROUP, pd.Series(dtype=str)).tolist()) for each in found]
    first, *others = numbers
    if first is not None and all(each is not None and np.array_equal(first, each) for each in others):
        return first
    if any(each is not None for each in numbers):
        say("the evaluations have different groups of images, or some have none: images are taken as independent")
    return None


def evaluate_command(train_run_id: str) -> str:
    """The command that evaluates a training."""
    return command("evaluate", run_id=train_run_id)


def _check_finished(run: store.StoredRun) -> None:
    if run.info.status != "FINISHED":
        raise ValueError(f"runs: {run.info.run_id} is {run.info.status}, not FINISHED")


def _evaluation_of(training: store.StoredRun) -> store.StoredRun:
    run_id = str(training.info.run_id)
    found = store.finished_runs("evaluate", {"train.run_id": run_id}, beside=training)
    if not found:
        raise ValueError(f"training {run_id} has no evaluation; create one with: {evaluate_command(run_id)}")
    # The served model has the best weights, so an evaluation of these comes first.
    return next((run for run in found if run.data.params.get("checkpoint") == "best"), found[0])


def _read(run: store.StoredRun) -> Evaluation:
    tags, run_id = run.data.tags, str(run.info.run_id)
    train_run_id = tags.get("train.run_id", "")
    if "test.digest" not in tags:
        raise ValueError(
            f"evaluation {run_id} is from an earlier version; create a new one with: {evaluate_command(train_run_id)}"
        )
    training = store.stored_run(train_run_id, "train.run_id")
    with store.scratch() as folder:
        predictions = _table(run_id, "predictions.csv", folder, TEXTS, NUMBERS, optional=[GROUP, PIXELS])
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


def _table(
    run_id: str,
    name: str,
    folder: Path,
    texts: Sequence[str],
    numbers: Sequence[str],
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """The columns `texts` and `numbers` of a run's table, with the texts as they were before `cell` changed them.

    `optional`: further texts, if the table has them. Raises ValueError if the table does not have this form.
    """
    path = store.artifact(run_id, name, folder)
    try:
        present = pd.read_csv(path, nrows=0).columns
        texts = [*texts, *(column for column in optional if column in present)]
        table = pd.read_csv(
            path,
            usecols=[*texts, *numbers],
            dtype={**dict.fromkeys(texts, str), **dict.fromkeys(numbers, float)},
            keep_default_na=False,
            na_values={column: [""] for column in numbers},
        )
        return table.assign(**{column: table[column].map(from_cell) for column in texts})
    except (OSError, ValueError):
        raise ValueError(f"run {run_id}: {name} is damaged or was changed") from None
