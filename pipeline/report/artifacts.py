"""The artifacts that a report is made from. Their content is accepted only in the form in which steps write it."""

import csv
import io
from collections.abc import Mapping

import pandas as pd

from pipeline.results import sprite
from pipeline.text import visible

PARENTS = ("main", "seeds")  # runs of several steps, without steps' artifacts of their own
SERIES: dict[str, tuple[str, ...] | None] = {"seeds.csv": (), "folds.csv": ()}
# By step and path: the columns with text; all others hold numbers. None: each column may hold either.
TABLES: dict[str, dict[str, tuple[str, ...] | None]] = {
    "lr_range": {"lr_range.csv": (), "short_cycles.csv": (), "short_cycle_updates.csv": ()},
    "probe": {},
    "sweep": {"study.csv": None, "importances.csv": ("parameter",)},
    "train": {
        "steps.csv": (),
        "watch/images.csv": ("name", "class"),
        "watch/maps.csv": ("blank",),
    },
    "evaluate": {
        "confusion_matrix.csv": ("true",),
        "most_confused.csv": ("true", "predicted"),
        "per_class.csv": ("class",),
        "reliability.csv": (),
        "slices.csv": ("column", "value", "below"),
        "thresholds.csv": ("class",),
        "sets.csv": ("class",),
        "set_sizes.csv": (),
        "members.csv": ("network",),
        "risk_coverage.csv": (),
        "thumbnails.csv": ("name", "true", "predicted"),
    },
    "learning_curve": {"learning_curve.csv": (), "forecast.csv": ()},
    "robustness": {"robustness.csv": ("corruption",), "corruptions.csv": ("corruption",)},
    "explain": {
        "explain/images.csv": ("image", "kind", "true", "predicted"),
        "explain/maps.csv": ("image", "kind", "map", "blank"),
        "explain/faithfulness.csv": ("source", "order"),
        "explain/scores.csv": ("source",),
        "explain/randomisation.csv": ("part",),
        "explain/border.csv": ("class", "stands_out"),
    },
}
COLUMNS: dict[str, tuple[str, ...]] = {
    "seeds.csv": ("seed",),
    "folds.csv": ("fold",),
    "lr_range.csv": ("repeat", "lr", "loss", "smoothed"),
    "short_cycles.csv": ("lr", "loss", "accuracy", "first_loss"),
    "short_cycle_updates.csv": ("peak", "update", "loss"),
    "study.csv": ("number", "state"),
    "importances.csv": ("parameter", "importance"),
    "steps.csv": ("epoch", "lr", "loss"),
    "watch/images.csv": ("name", "class", "left", "top", "side"),
    "watch/maps.csv": ("image", "epoch", "blank", "left", "top", "side"),
    "most_confused.csv": ("true", "predicted", "count", "share_of_true"),
    "per_class.csv": ("class", "precision", "recall", "f1", "support"),
    "reliability.csv": ("low", "high", "confidence", "accuracy", "count"),
    "slices.csv": ("column", "value", "images", "accuracy", "low", "high", "below"),
    "thresholds.csv": ("class", "threshold", "valid_images", "reported", "precision", "recall"),
    "sets.csv": ("class", "images", "set_size", "coverage", "coverage_low", "coverage_high"),
    "set_sizes.csv": ("images", "set_size", "coverage", "coverage_low", "coverage_high"),
    "members.csv": ("network", "accuracy", "loss", "ece", "parameters", "seconds_per_image"),
    "risk_coverage.csv": ("threshold", "coverage", "error", "error_low", "error_high"),
    "thumbnails.csv": ("name", "true", "predicted", "confidence", "left", "top", "side"),
    "robustness.csv": ("corruption", "severity", "accuracy", "low", "high"),
    "corruptions.csv": ("corruption", "accuracy", "low", "high"),
    "learning_curve.csv": ("images", "images_per_class", "trainings", "accuracy", "low", "high"),
    "forecast.csv": ("images", "accuracy", "low", "high"),
    "explain/images.csv": ("image", "kind", "true", "predicted", "confidence", "left", "top", "side"),
    "explain/maps.csv": ("image", "kind", "map", "blank"),
    "explain/faithfulness.csv": ("source", "order", "fraction", "confidence"),
    "explain/scores.csv": ("source", "faithfulness", "standard_error", "insertion", "insertion_error"),
    "explain/randomisation.csv": ("part", "similarity", "standard_error"),
    "explain/border.csv": ("class", "images", "border_share", "standard_error", "other_classes", "stands_out"),
}
MATRIX = "confusion_matrix.csv"  # one column per class, with any name, and the true class as last column
EPOCH_METRICS = ("train/loss", "train/accuracy", "valid/loss", "valid/accuracy", "lr")

MAX_TABLE_BYTES = 64 * 2**20
# By step and path, the most bytes of a picture, so that the page can be mailed.
PICTURES = {
    "train": {"watch/images.webp": sprite.SLIDER_BYTES, "watch/maps.webp": sprite.SLIDER_BYTES},
    "evaluate": {"thumbnails.webp": sprite.MAX_BYTES},
    "explain": {"explain/images.webp": sprite.MAX_BYTES, "explain/maps.webp": sprite.MAX_BYTES},
}


def table(kind: str, path: str, content: str) -> pd.DataFrame:
    """The table of a step of this kind at `path`. Raises ValueError if `content` is not such a table."""
    try:
        header, *rows = list(csv.reader(io.StringIO(content))) or [[]]
    except csv.Error as error:
        raise ValueError(f"not CSV ({error})") from None
    if any(len(row) != len(header) for row in rows):
        raise ValueError("rows of different lengths")
    names = [visible(name) for name in header]
    if missing := [name for name in COLUMNS.get(path, ()) if name not in names]:
        raise ValueError(f"no column {missing[0]}")
    texts = _tables(kind)[path]
    columns = [pd.Series(column, dtype=object) for column in zip(*rows, strict=True)] or [
        pd.Series(dtype=object) for _ in names
    ]
    if path == MATRIX:
        read = [*map(_numbers, columns[:-1]), *map(_texts, columns[-1:])]
        if [*read[-1]] != names[:-1]:
            raise ValueError("rows and columns of different classes")
    elif texts is None:
        read = [_either(column) for column in columns]
    else:
        read = [
            _texts(column) if name in texts else _numbers(column) for name, column in zip(names, columns, strict=True)
        ]
    # The columns are joined by position, because a class may be named "true".
    found = pd.concat(read, axis=1)
    found.columns = pd.Index(names)
    return found


def picture(content: bytes) -> bytes:
    """`content`, if it is a WebP file. Raises ValueError for any other."""
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        raise ValueError("not a WebP image")
    return content


def paths(kind: str) -> Mapping[str, int]:
    """The artifacts of a step that a page uses, with the most bytes of each."""
    tables = dict.fromkeys(_tables(kind), MAX_TABLE_BYTES)
    return tables | PICTURES.get(kind, {})


def _tables(kind: str) -> Mapping[str, tuple[str, ...] | None]:
    return SERIES if kind in PARENTS else TABLES.get(kind, {})


def _numbers(column: pd.Series) -> pd.Series:
    try:
        return column.map(lambda text: float(text) if text else float("nan")).astype(float)
    except ValueError:
        raise ValueError("text in a column of numbers") from None


def _texts(column: pd.Series) -> pd.Series:
    return column.map(visible)


def _either(column: pd.Series) -> pd.Series:
    try:
        return _numbers(column)
    except ValueError:
        return _texts(column)
