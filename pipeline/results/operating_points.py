"""A threshold for each class that keeps a wanted recall or precision, and the classes that they give for an image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results import prediction_sets
from pipeline.results.metrics import accuracy, share_interval
from pipeline.results.rejection import Outcomes


class Answers(NamedTuple):
    """Labels (N,) int64 and probabilities (N, C) of a split."""

    labels: np.ndarray
    probabilities: np.ndarray


def for_recall(valid: Answers, recall: float) -> np.ndarray:
    """For each class, the probability from which on it is reported, (C,) in [0, 1].

    At least the share `recall` of new images of the class is reported, on average over validation sets, if they come
    from the same source. For that, it is the threshold of prediction sets for this class alone: 0 if too few validation
    images have the class (Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341).
    """
    classes = range(valid.probabilities.shape[1])
    return np.array([prediction_sets.threshold(valid.probabilities[valid.labels == c, c], recall) for c in classes])


def for_precision(valid: Answers, precision: float) -> np.ndarray:
    """For each class, the lowest probability from which on the share `precision` of validation images is right, (C,).

    The lowest one has the highest recall. It is NaN for a class that reaches the precision from no probability on.
    """
    most_error = round(1 - precision, 9)  # because 1 - 0.9 is a little less than 0.1
    classes = range(valid.probabilities.shape[1])
    found = [Outcomes(valid.probabilities[:, c], valid.labels == c).threshold(most_error) for c in classes]
    return np.where(np.isfinite(found), found, np.nan)


def table(
    test: Answers, valid: Answers, cuts: np.ndarray, classes: Sequence[str], groups: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per class: class, threshold, valid_images, valid_reported, and on test: reported, recall, precision.

    `valid_images` counts the validation images of the class; `valid_reported` and `reported` count images reported as
    the class. cuts: (C,), the thresholds, NaN for a class that is never reported. `recall_low` and so on are 95 %
    Wilson intervals, or over `groups` (N,) int64. Without images to divide by, a share is NaN.
    """
    valid_images = np.bincount(valid.labels, minlength=len(classes))
    valid_reported = (valid.probabilities >= cuts).sum(axis=0)
    rows = []
    for place, name in enumerate(classes):
        reported, is_class = test.probabilities[:, place] >= cuts[place], test.labels == place
        row = {"class": name, "threshold": cuts[place], "valid_images": int(valid_images[place])}
        row["valid_reported"] = int(valid_reported[place])
        row["reported"] = int(reported.sum())
        row |= _share("recall", reported[is_class], None if groups is None else groups[is_class])
        row |= _share("precision", is_class[reported], None if groups is None else groups[reported])
        rows.append(row)
    return pd.DataFrame(rows)


def numbers(test: Answers, cuts: np.ndarray) -> dict[str, float]:
    """The metrics of the reported classes: `test/threshold_coverage` with its 95 % interval, `test/threshold_classes`.

    The coverage is the share of images whose class is among the reported ones, and the other their mean number.
    """
    inside = test.probabilities >= cuts
    covered = inside[np.arange(len(test.labels)), test.labels]
    return {**accuracy("test/threshold_coverage", covered), "test/threshold_classes": float(inside.sum(axis=1).mean())}


def _share(name: str, hits: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    if not len(hits):
        return {name: float("nan"), f"{name}_low": 0.0, f"{name}_high": 1.0}
    low, high = share_interval(hits, groups)
    return {name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}
