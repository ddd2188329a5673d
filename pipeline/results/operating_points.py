"""A threshold for each class that keeps a wanted recall, and the sets of classes that they give for an image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results.metrics import accuracy, share_interval


class Answers(NamedTuple):
    """Labels (N,) int64 and probabilities (N, C) of a split."""

    labels: np.ndarray
    probabilities: np.ndarray


def thresholds(valid: Answers, recall: float) -> np.ndarray:
    """For each class, the probability from which on it is reported, (C,) in [0, 1].

    At least the share `recall` of new images of the class is reported, on average over validation sets, if they come
    from the same source. For that, the threshold is the k-th lowest probability of the n validation images of the
    class, with k = floor((n + 1) (1 - recall)), rather than a quantile of them. It is 0 where k is 0: too few images
    (Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341).
    """
    found = np.zeros(valid.probabilities.shape[1])
    for place in range(len(found)):
        own = np.sort(valid.probabilities[valid.labels == place, place])
        # Rounded first, because 1 - 0.9 is a little less than 0.1.
        rank = math.floor(round((len(own) + 1) * (1 - recall), 9))
        found[place] = own[rank - 1] if rank else 0.0
    return found


def table(
    test: Answers, cuts: np.ndarray, valid_images: np.ndarray, classes: Sequence[str], groups: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per class: class, threshold, valid_images of it, and on test: reported, recall, precision.

    cuts, valid_images: (C,). `recall_low` and so on are 95 % Wilson intervals, or over `groups` (N,) int64. Without
    images to divide by, a share is NaN.
    """
    rows = []
    for place, name in enumerate(classes):
        reported, is_class = test.probabilities[:, place] >= cuts[place], test.labels == place
        row = {"class": name, "threshold": cuts[place], "valid_images": int(valid_images[place])}
        row["reported"] = int(reported.sum())
        row |= _share("recall", reported[is_class], None if groups is None else groups[is_class])
        row |= _share("precision", is_class[reported], None if groups is None else groups[reported])
        rows.append(row)
    return pd.DataFrame(rows)


def sets(test: Answers, cuts: np.ndarray) -> dict[str, float]:
    """The metrics of the sets of reported classes: `test/set_coverage` with its 95 % interval, and `test/set_size`.

    The coverage is the share of images whose set has their class. The size is the mean number of classes in a set.
    """
    inside = test.probabilities >= cuts
    covered = inside[np.arange(len(test.labels)), test.labels]
    return {**accuracy("test/set_coverage", covered), "test/set_size": float(inside.sum(axis=1).mean())}


def _share(name: str, hits: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    if not len(hits):
        return {name: float("nan"), f"{name}_low": 0.0, f"{name}_high": 1.0}
    low, high = share_interval(hits, groups)
    return {name: float(hits.mean()), f"{name}_low": low, f"{name}_high": high}
