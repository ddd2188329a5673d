"""Trainings on different versions of a set: which labels changed, and the test images that their evaluations share."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.history.evaluation import PIXELS, Evaluation, evaluate_command
from pipeline.results import metrics
from pipeline.text import from_cell
from pipeline.tracking import store

IMAGE = ["name", PIXELS]  # columns of predictions.csv that tell images apart

LEAST_PROBABILITY = np.finfo(np.float64).eps  # so that a loss is finite


class Shared(NamedTuple):
    """Evaluations on the same test images, and a line about the images left out; empty if all are the same."""

    evaluations: list[Evaluation]
    line: str


def shared(found: Sequence[Evaluation]) -> Shared:
    """The evaluations, cut down to the test images that all of them have under the same label.

    Images are the same if name and pixels are. Raises ValueError if there is no such image, and for damaged tables.
    """
    first, *others = found
    other = next((each for each in others if each.test_digest != first.test_digest), None)
    if other is None:
        for each in others:
            if not each.predictions[["name", "true"]].equals(first.predictions[["name", "true"]]):
                raise ValueError(f"predictions.csv of {first.run_id} and {each.run_id} do not name the same images")
        return Shared([*found], "")
    for each in found:
        if PIXELS not in each.predictions:
            raise ValueError(
                f"the test images differ, and evaluation {each.run_id} of an earlier version does not say how; "
                f"create a new one with: {evaluate_command(each.train_run_id)}"
            )
    labels = [each.predictions.set_index(IMAGE)["true"] for each in found]
    everywhere = pd.concat(labels, axis=1, join="inner")
    same = everywhere[everywhere.nunique(axis=1) == 1].index
    if not len(same):
        raise ValueError(
            f"evaluations {first.run_id} and {other.run_id} are of different test images, or of other "
            f"pixels of them (image_size, resize, crop_area; digests {first.test_digest}, {other.test_digest})"
        )
    num_images = len(pd.concat(labels, axis=1))
    line = (
        f"the test images differ: compared on the {len(same):,} that all share under the same label; left out: "
        f"{len(everywhere) - len(same):,} with another label, {num_images - len(everywhere):,} that not all have"
    )
    return Shared([_cut_down(each, same) for each in found], line)


def _cut_down(each: Evaluation, images: pd.Index) -> Evaluation:
    table = each.predictions.set_index(IMAGE).loc[images].reset_index()
    confidence, correct = table["confidence"].to_numpy(), (table["true"] == table["predicted"]).to_numpy()
    ece, reliability = metrics.calibration_of(confidence, correct)
    numbers = {
        "accuracy": float(correct.mean()),
        "loss": float(-np.log(table["probability_of_true"].clip(lower=LEAST_PROBABILITY)).mean()),
        "macro_f1": metrics.macro_f1(table["true"].to_numpy(), table["predicted"].to_numpy()),
        "ece": ece,
    }
    measured = {f"test/{name}": value for name, value in numbers.items()}
    return replace(each, predictions=table, reliability=reliability, metrics=measured)


def changes(before: Evaluation, after: Evaluation) -> pd.DataFrame:
    """A row per image of the whole set whose label differs between two trainings: file, before, after, excluded.

    `excluded`: whether the second training has no such file. An image that only one of them has lacks the other label.
    Raises ValueError if a training does not say which labels it had.
    """
    labels = [_labels(each.train_run_id) for each in (before, after)]
    table = pd.concat(labels, axis=1, keys=["before", "after"], sort=True).fillna("")
    table = table[table["before"] != table["after"]].rename_axis("file").reset_index()
    return table.assign(excluded=table["after"] == "")


def _labels(train_run_id: str) -> pd.Series:
    with store.scratch() as folder:
        path = store.artifact(train_run_id, "splits.csv", folder)
        try:
            table = pd.read_csv(path, usecols=["name", "class"], dtype=str, keep_default_na=False)
        except (OSError, ValueError):
            raise ValueError(f"training {train_run_id} of an earlier version does not list its labels") from None
    return table["class"].map(from_cell).set_axis(table["name"].map(from_cell))
