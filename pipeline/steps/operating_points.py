"""Chooses a threshold for each class on validation, and reports what it gives on test."""

import numpy as np
import pandas as pd
from scipy.special import softmax

from pipeline.history.trained_model import ModelAndImages
from pipeline.params import EvaluateParams
from pipeline.results import operating_points, plots
from pipeline.results.metrics import accuracy_interval
from pipeline.results.operating_points import Answers
from pipeline.tracking.run import Run
from pipeline.training.calibration import split_logits_and_features


def check(trained: ModelAndImages, params: EvaluateParams) -> None:
    """Raises ValueError if thresholds are asked for, and the training has no images to choose them on."""
    what, wanted = _wanted(params)
    if wanted and trained.splits.valid is None:
        raise ValueError(f"wanted_{what}={wanted:g}: training {trained.run_id} has no validation images for thresholds")


def report(
    run: Run, trained: ModelAndImages, params: EvaluateParams, test: Answers, groups: np.ndarray | None
) -> tuple[dict[str, float], str]:
    """Logs thresholds.csv and thresholds.png. Returns the numbers, keyed by metric name, and a line about them."""
    split, (what, wanted) = trained.splits.valid, _wanted(params)
    if not wanted or split is None:
        return {}, ""
    logits, _ = split_logits_and_features(trained.classifier.model, trained.splits, split, trained.precision)
    valid = Answers(split.labels, softmax(logits.astype(np.float64) / trained.classifier.temperature, axis=1))
    choose = operating_points.for_recall if what == "recall" else operating_points.for_precision
    cuts = choose(valid, wanted)
    table = operating_points.table(test, valid, cuts, trained.splits.classes, groups)
    run.table("thresholds.csv", table)
    run.figure("thresholds.png", plots.operating_points(table, what, wanted))
    numbers = operating_points.numbers(test, cuts)
    numbers |= {f"test/threshold_{name}": float(table[name].mean()) for name in ("recall", "precision")}
    numbers["test/classes_without_threshold"] = float((np.nan_to_num(cuts) == 0).sum())
    numbers = {name: value for name, value in numbers.items() if not np.isnan(value)}
    words = _of_recall if what == "recall" else _of_precision
    return numbers, f"thresholds for {what} {wanted:.0%}: {words(numbers, table)}"


def _wanted(params: EvaluateParams) -> tuple[str, float]:
    """The purpose of the thresholds, `recall` or `precision`, and its wanted value; 0 for no thresholds."""
    return ("precision", params.wanted_precision) if params.wanted_precision else ("recall", params.wanted_recall)


def _of_recall(numbers: dict[str, float], table: pd.DataFrame) -> str:
    coverage, low, high, size = (
        numbers[f"test/threshold_{name}"] for name in ("coverage", "coverage_low", "coverage_high", "classes")
    )
    words = (
        f"the class is among {size:.2f} reported ones for {coverage:.1%} of the "
        f"test images (95 % interval {low:.1%} to {high:.1%})"
    )
    if few := int(numbers["test/classes_without_threshold"]):
        words += f"; {few} of {len(table)} classes have too few validation images, and are always reported"
    return words


def _of_precision(numbers: dict[str, float], table: pd.DataFrame) -> str:
    reached = table.dropna(subset="precision")
    words = "no class is reported on test"
    if len(reached):
        hits = round(float((reached["precision"] * reached["reported"]).sum()))
        low, high = accuracy_interval(hits, int(reached["reported"].sum()))
        words = (
            f"{hits / reached['reported'].sum():.1%} of the reports on test are right (95 % interval {low:.1%} to "
            f"{high:.1%}), with a mean recall of {numbers['test/threshold_recall']:.1%}"
        )
    if never := int(numbers["test/classes_without_threshold"]):
        words += f"; {never} of {len(table)} classes reach it at no threshold, and are never reported"
    return words
