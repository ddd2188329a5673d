"""How accuracy falls as images are spoiled: for each corruption and severity, and against a reference network."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results.dependence import Interval, of_resamples, resampled_means
from pipeline.results.metrics import share_interval

RESAMPLES = 2000


@dataclass(frozen=True)
class Answers:
    """The errors of a network on N test images: clean, and spoiled by C corruptions at S severities."""

    clean: np.ndarray  # (N,) bool
    spoiled: np.ndarray  # (C, S, N) bool


class Summary(NamedTuple):
    """Numbers over all severities. Without a reference, there is no corruption error."""

    accuracy: Interval  # mean over corruptions and severities
    lost: Interval  # clean accuracy minus that mean
    accuracies: list[Interval]  # for each corruption, the mean over severities
    corruption_errors: list[Interval]  # for each corruption, relative to the reference: 1 is as good
    mean_corruption_error: Interval | None


def table(answers: Answers, names: list[str], strengths: np.ndarray, groups: np.ndarray | None = None) -> pd.DataFrame:
    """One row per corruption and severity: corruption, severity, strength, accuracy, low, high.

    strengths: (C, S). The first row, `none`, is of the clean images, with severity 0. Low and high are the 95 % Wilson
    interval; with `groups` (N,) int64 it is over groups.
    """
    cases = [("none", 0, np.nan, answers.clean)]
    cases += [
        (name, severity + 1, strengths[place, severity], answers.spoiled[place, severity])
        for place, name in enumerate(names)
        for severity in range(answers.spoiled.shape[1])
    ]
    rows = []
    for name, severity, strength, wrong in cases:
        right = ~wrong
        low, high = share_interval(right, groups)
        rows.append((name, severity, strength, right.mean(), low, high))
    return pd.DataFrame(rows, columns=["corruption", "severity", "strength", "accuracy", "low", "high"])


def summarise(
    answers: Answers, reference: Answers | None = None, groups: np.ndarray | None = None, seed: int = 0
) -> Summary:
    """Means over severities with intervals from resampled images, or resampled `groups` (N,) int64.

    The error of a corruption is the sum of the errors over its severities, divided by the same sum of the `reference`
    on the same images (Hendrycks & Dietterich 2019, arXiv:1903.12261). It is NaN if the reference makes no error.
    """
    kinds = len(answers.spoiled)
    columns = [answers.clean[None], answers.spoiled.mean(axis=1)]
    if reference is not None:
        columns.append(reference.spoiled.mean(axis=1))
    values = np.concatenate(columns).T
    drawn = resampled_means(values, groups, np.random.default_rng(seed), RESAMPLES)
    errors = np.concatenate([values.mean(axis=0)[None], drawn])
    clean, own, others = errors[:, 0], errors[:, 1 : kinds + 1], errors[:, kinds + 1 :]
    accuracy = of_resamples(1 - own.mean(axis=1))
    lost = of_resamples(own.mean(axis=1) - clean)
    accuracies = [of_resamples(1 - column) for column in own.T]
    if reference is None:
        return Summary(accuracy, lost, accuracies, [], None)
    ratios = np.divide(own, others, out=np.full_like(own, np.nan), where=others > 0)
    known = ~np.isnan(ratios[0])
    return Summary(
        accuracy,
        lost,
        accuracies,
        [of_resamples(column) for column in ratios.T],
        of_resamples(ratios[:, known].mean(axis=1)) if known.any() else None,
    )
