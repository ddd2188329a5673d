"""Sets of classes that hold the true class of an image with a wanted probability: split conformal prediction.

Sadinle et al. 2019 (doi:10.1080/01621459.2017.1395341) give the rule. Here, a set also has the likeliest class.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

COVERAGE = 0.9  # by default, the share of new images whose set holds their class
SMALL = 1e-9  # rounding must not ask for one more image


@dataclass(frozen=True)
class PredictionSets:
    """Which classes form the set of an image: the likeliest, and all others from a threshold of their probability on.

    On average over validation sets, at least the share `coverage` of new images from the same source have their class
    in the set. If validation has fewer than `needed(coverage)` images, the threshold is 0: a set has all classes.
    """

    coverage: float  # wanted, in (0, 1)
    threshold: float  # in [0, 1]
    probabilities: np.ndarray  # (N,) float64, the calibrated probability of each validation image's own class

    @property
    def is_known(self) -> bool:
        """Whether validation has enough images for the wanted coverage."""
        return len(self.probabilities) >= needed(self.coverage)

    def covering(self, coverage: float) -> Self:
        """The sets for another coverage."""
        return replace(self, coverage=coverage, threshold=threshold(self.probabilities, coverage))

    def inside(self, probabilities: np.ndarray) -> np.ndarray:
        """Whether each class is in the set of each image, (N, C) bool, from their `probabilities` (N, C)."""
        found = probabilities >= self.threshold
        found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
        return found


def fit(probabilities: np.ndarray, coverage: float = COVERAGE) -> PredictionSets:
    """The sets from the calibrated `probabilities` (N,) of the own classes of the validation images."""
    own = probabilities.astype(np.float64)
    return PredictionSets(coverage, threshold(own, coverage), own)


def needed(coverage: float) -> int:
    """The smallest number of validation images for a `coverage`: 1 / (1 - coverage) - 1, rounded up."""
    return math.ceil(coverage / (1 - coverage) - SMALL)


def lack(sets: PredictionSets | None) -> str:
    """Why there are no sets of classes, in one line; empty if there are."""
    if sets is None:
        return "no sets of classes: the weights are of an earlier version"
    if sets.is_known:
        return ""
    wanted = f"set_coverage={sets.coverage:g} needs {needed(sets.coverage):,} validation images"
    return f"no sets of classes: {wanted}, and there are {len(sets.probabilities):,}"


def threshold(probabilities: np.ndarray, coverage: float) -> float:
    """The probability that a new image's own class reaches with a probability of at least `coverage`.

    `probabilities` (N,): of the own class of each validation image. The result is 0 for fewer images than `needed`.
    """
    if len(probabilities) < needed(coverage):
        return 0.0
    from mapie.conformity_scores import LACConformityScore  # imported late, as in `temperature.fit`

    scores, miscoverage = -probabilities[:, None], np.array([1 - coverage + SMALL])
    return float(-LACConformityScore().get_conformity_score_quantiles(scores, miscoverage, cv="prefit")[0])


def as_texts(inside: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Each set as a JSON list of its classes, the likeliest first. inside, probabilities: (N, C)."""
    return [json.dumps(names, ensure_ascii=False) for names in named(inside, probabilities, classes)]


def named(inside: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Iterator[list[str]]:
    """The names of the classes in each set, the likeliest first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    for places, members in zip(order, inside, strict=True):
        yield [classes[place] for place in places[members[places]]]


def numbers(inside: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """The metrics of sets (N, C) on images with `labels` (N,).

    `test/set_coverage` with its 95 % interval, also over `groups` (N,) int64; `test/set_size`, the mean number of
    classes; `test/single_sets`, the share of sets of one class.
    """
    from pipeline.results import dependence, metrics

    covered, sizes = _covered(inside, labels), inside.sum(axis=1)
    found = metrics.accuracy("test/set_coverage", covered)
    if groups is not None:
        over = dependence.share(covered, groups)
        found |= {"test/set_coverage_over_groups_low": over.low, "test/set_coverage_over_groups_high": over.high}
    return {**found, "test/set_size": float(sizes.mean()), "test/single_sets": float((sizes == 1).mean())}


def by_class(
    inside: np.ndarray, labels: np.ndarray, classes: Sequence[str], groups: np.ndarray | None = None
) -> pd.DataFrame:
    """A row per class that occurs: class, images, mean set_size, coverage and its 95 % interval.

    With `groups` (N,) int64, the intervals are over them.
    """
    occurring = np.unique(labels)
    rows = [_row(inside, labels, groups, labels == label) for label in occurring]
    return pd.DataFrame({"class": [classes[label] for label in occurring], **pd.DataFrame(rows)})


def by_size(inside: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> pd.DataFrame:
    """A row per size that a set has: images, set_size, coverage and its 95 % interval."""
    sizes = inside.sum(axis=1)
    return pd.DataFrame([_row(inside, labels, groups, sizes == size) for size in np.unique(sizes)])


def _row(inside: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, rows: np.ndarray) -> dict[str, Any]:
    """The row of a table for the images `rows` (N,) bool."""
    from pipeline.results import metrics

    covered = _covered(inside[rows], labels[rows])
    low, high = metrics.share_interval(covered, None if groups is None else groups[rows])
    numbers = {"coverage": float(covered.mean()), "coverage_low": low, "coverage_high": high}
    return {"images": len(covered), "set_size": float(inside[rows].sum(axis=1).mean()), **numbers}


def _covered(inside: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.asarray(inside[np.arange(len(labels)), labels])
