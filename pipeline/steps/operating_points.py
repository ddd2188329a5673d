"""Chooses a threshold for each class on validation, and reports what it gives on test."""

import numpy as np
from scipy.special import softmax

from pipeline.history.trained_model import ModelAndImages
from pipeline.params import EvaluateParams
from pipeline.results import operating_points, plots
from pipeline.results.operating_points import Answers
from pipeline.tracking.run import Run
from pipeline.training.calibration import look_at_all


def check(trained: ModelAndImages, wanted_recall: float) -> None:
    """Raises ValueError if thresholds are asked for, and the training has no images to choose them on."""
    if wanted_recall and trained.splits.valid is None:
        raise ValueError(
            f"wanted_recall={wanted_recall:g}: training {trained.run_id} has no validation images for thresholds"
        )


def report(
    run: Run, trained: ModelAndImages, params: EvaluateParams, test: Answers, groups: np.ndarray | None
) -> tuple[dict[str, float], str]:
    """Logs thresholds.csv and thresholds.png. Returns the numbers, keyed by metric name, and words about them."""
    valid, recall = trained.splits.valid, params.wanted_recall
    if not recall or valid is None:
        return {}, ""
    logits, _ = look_at_all(trained.classifier.model, trained.splits, valid, trained.precision)
    probabilities = softmax(logits.astype(np.float64) / trained.classifier.temperature, axis=1)
    classes = trained.splits.classes
    cuts = operating_points.thresholds(Answers(valid.labels, probabilities), recall)
    counts = np.bincount(valid.labels, minlength=len(classes))
    table = operating_points.table(test, cuts, counts, classes, groups)
    run.table("thresholds.csv", table)
    run.figure("thresholds.png", plots.operating_points(table, recall))
    numbers = operating_points.numbers(test, cuts)
    numbers["test/threshold_recall"] = float(table["recall"].mean())
    numbers["test/threshold_precision"] = float(table["precision"].mean())
    numbers["test/classes_without_threshold"] = float((cuts == 0).sum())
    coverage, low, high, size = (
        numbers[f"test/threshold_{name}"] for name in ("coverage", "coverage_low", "coverage_high", "classes")
    )
    words = (
        f"; thresholds for recall {recall:.0%}: the class is among {size:.2f} reported ones for {coverage:.1%} of the "
        f"test images (95 % interval {low:.1%} to {high:.1%})"
    )
    if few := int((cuts == 0).sum()):
        words += f"; {few} of {len(classes)} classes have too few validation images, and are always reported"
    return numbers, words
