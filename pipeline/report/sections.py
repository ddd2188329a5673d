"""The content of a page's sections, from the records of runs."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.report.record import Record, StepRecord

MATRIX_CLASSES = 60  # with more classes, only the most frequent errors are shown
MOST_ROWS = 1000  # of a table on the page
EPOCH_ROWS = 100  # of the table under the curves
CURVE_POINTS, LADDER_POINTS = 1000, 3000
WATCHED_MAPS = 4096  # enough for 64 images and 60 epochs
CHARTED = {
    "lr_range.csv": LADDER_POINTS,
    "short_cycle_updates.csv": LADDER_POINTS,
    "steps.csv": CURVE_POINTS,
    "study.csv": MOST_ROWS,
}
CHARTED |= {"watch/maps.csv": WATCHED_MAPS}
UNCHARTED = {"confusion_matrix.csv", "per_class.csv", "most_confused.csv", "slices.csv", "thresholds.csv"}
UNCHARTED |= {"sets.csv", "set_sizes.csv", "members.csv"}
UNCHARTED |= {f"explain/{name}.csv" for name in ("images", "maps", "scores", "randomisation", "border")}
UNCHARTED |= {"watch/images.csv"}
ACCURACIES = {"test/accuracy": "test", "weights/best_valid_accuracy": "validation"}
NUMBERS = {
    "coverage": ("sure answers", "percent"),
    "ece": ("calibration error (ECE)", "percent"),
    "ece_uncalibrated": ("calibration error before calibration", "percent"),
    "loss": ("loss (nats)", "plain"),
    "macro_f1": ("macro F1", "plain"),
    "risk_coverage_area": ("area under errors by coverage", "plain"),
    "set_coverage": ("sets of classes that hold the class", "percent"),
    "set_coverage_wanted": ("sets of classes that should hold the class, at least", "percent"),
    "set_size": ("classes in a set", "plain"),
    "single_sets": ("sets of one class", "percent"),
    "slices": ("slices", "count"),
    "sure_error": ("wrong among sure answers", "percent"),
    "threshold_classes": ("classes reported for an image", "plain"),
    "threshold_coverage": ("images whose class is reported", "percent"),
    "unlike": ("unlike the training images", "percent"),
    "worst_slice_accuracy": ("accuracy of the worst slice", "percent"),
}
RIVALS = {"probe": "probe", "train": "trained network"}
RATES = ("valley", "steepest", "minimum_over_10")
PARENT = "mlflow.parentRunId"  # tag: the parent run


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix; `share` of the images of the true class, in [0, 1]."""

    predicted: str
    count: int
    share: float
    is_hit: bool


@dataclass(frozen=True)
class Sprite:
    """Many small images in one file."""

    id: str
    uri: str
    width: int
    height: int


def charted(record: Record) -> dict[str, Any]:
    """The data of the charts as plain JSON: `tables` by step and path, thinned out if long, and `metrics` by step."""
    tables = {
        f"{kind}/{path}": columns(thin(table, CHARTED.get(path, MOST_ROWS)))
        for kind, step in record.steps.items()
        for path, table in step.tables.items()
        if path not in UNCHARTED
    }
    epochs = {f"{kind}/epochs": columns(thin(step.epochs, CURVE_POINTS)) for kind, step in record.steps.items()}
    metrics = {kind: _finite(step.metrics) for kind, step in record.steps.items()}
    return {"tables": tables | {name: table for name, table in epochs.items() if table}, "metrics": metrics}


def columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """A table's columns by name, with None for numbers that are not finite."""
    return {
        str(name): [None if isinstance(value, float) and not np.isfinite(value) else value for value in table[name]]
        for name in table.columns
    }


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}


def thin(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, evenly spread, including the first and the last."""
    if len(table) <= most:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, most).astype(int))]


def matrix(step: StepRecord) -> list[tuple[str, list[Cell]]]:
    """(name, cells) for each true class of an evaluation; empty if there are too many classes to show."""
    table = step.tables.get("confusion_matrix.csv")
    if table is None or len(table) > MATRIX_CLASSES:
        return []
    classes, counts = list(table.columns[:-1]), table.iloc[:, :-1].to_numpy(dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        (name, [Cell(classes[j], int(counts[i, j]), float(shares[i, j]), i == j) for j in range(len(classes))])
        for i, name in enumerate(classes)
    ]


def num_images(step: StepRecord) -> int | None:
    """The number of test images of an evaluation; None if unknown."""
    table = step.tables.get("confusion_matrix.csv")
    return None if table is None else int(table.iloc[:, :-1].to_numpy(dtype=float).sum())


def errors(step: StepRecord) -> Iterator[tuple[Mapping[Any, Any], list[dict[Any, Any]]]]:
    """(image, its maps) for each misclassified image of an explanation, in the order in which they were chosen."""
    images, maps = step.tables.get("explain/images.csv"), step.tables.get("explain/maps.csv")
    if images is None or maps is None or "left" not in maps:
        return
    for image in images[images["kind"] == "misclassified"].to_dict("records"):
        own = maps[(maps["image"] == image["image"]) & (maps["kind"] == "misclassified")]
        yield image, own.to_dict("records")


def watched(step: StepRecord) -> list[tuple[Mapping[Any, Any], Mapping[Any, Any]]]:
    """(image, its map after the last epoch) for each image that a training watched."""
    images, maps = (step.tables.get(f"watch/{name}.csv") for name in ("images", "maps"))
    if images is None or maps is None or not {f"watch/{name}.webp" for name in ("images", "maps")} <= {*step.pictures}:
        return []
    last = {row["image"]: row for row in maps.sort_values("epoch").to_dict("records")}
    return [(image, last[place]) for place, image in enumerate(images.to_dict("records")) if place in last]


def sprites(record: Record) -> list[Sprite]:
    """The files of small images. The page embeds each once."""
    return [
        sprite
        for step in record.steps.values()
        for path, content in step.pictures.items()
        if (sprite := _sprite(path, content, step.tables.get(path.replace(".webp", ".csv")))) is not None
    ]


def _sprite(path: str, content: bytes, places: pd.DataFrame | None) -> Sprite | None:
    if places is None or places.empty or not {"left", "top", "side"} <= {*places.columns}:
        return None
    width, height = (int((places[edge] + places["side"]).max()) for edge in ("left", "top"))
    uri = f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}"
    return Sprite(path.replace("/", "-").removesuffix(".webp"), uri, width, height)


def rates(step: StepRecord) -> list[str]:
    """The rules of a range test that found a rate."""
    return [rule for rule in RATES if f"lr_range/{rule}" in step.metrics]


def number_in_words(metric: str) -> tuple[str, str]:
    """The name of an evaluation's metric on the page, and how it is shown."""
    name = metric.removeprefix("test/")
    return NUMBERS.get(name, (name.replace("_", " "), "percent" if "accuracy" in name else "plain"))


def of_seeds(record: Record) -> str:
    """The metric of accuracy over several seeds; empty if there is only one seed."""
    table = record.run.tables.get("seeds.csv", pd.DataFrame())
    return next((name for name in ACCURACIES if name in table and f"{name}_sd" in record.run.metrics), "")


def method(step: StepRecord) -> str:
    """How the maps of an explanation were made: the first that was measured, or what was asked for before that."""
    curves = step.tables.get("explain/faithfulness.csv")
    return str(step.params.get("method", "the maps") if curves is None or curves.empty else curves["source"].iloc[0])


def controls(step: StepRecord) -> list[str]:
    """The metrics of the controls with which an explanation's maps are compared."""
    return sorted(name for name in step.metrics if name.startswith("explain/faithfulness_"))


def is_of(step: StepRecord, training: StepRecord | None) -> bool:
    """Whether an evaluation or an explanation is of that training or probe."""
    return training is not None and step.tags.get("train.run_id") == training.run_id


def rivals(record: Record) -> list[tuple[str, StepRecord, StepRecord]]:
    """A probe and a trained network by name, with the evaluation of each; none where not both were evaluated."""
    steps = record.steps
    evaluations = [steps[kind] for kind in ("evaluate", "evaluate_beside") if kind in steps]
    found = [
        (name, steps[kind], evaluation)
        for kind, name in RIVALS.items()
        for evaluation in evaluations
        if is_of(evaluation, steps.get(kind)) and "test/accuracy" in evaluation.metrics
    ]
    return found if len(found) == len(RIVALS) else []


def timed(record: Record) -> list[StepRecord]:
    """The steps whose times add up to the total.

    A range test counts only if it is a step of its own. If the training ran it, the training's time includes it; if the
    training found an earlier one, it took no time.
    """
    train = record.steps.get("train")
    every = record.steps.values()
    return [step for step in every if step.kind != "lr_range" or train is None or _are_beside(step, train)]


def _are_beside(one: StepRecord, other: StepRecord) -> bool:
    return PARENT in one.tags and one.tags[PARENT] == other.tags.get(PARENT)
