"""Computes metrics from predictions: accuracy with its interval, per class, confusion, calibration."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_curve,
    precision_recall_fscore_support,
    recall_score,
    top_k_accuracy_score,
)

from pipeline.results import dependence

PROBABILITY_COLUMNS = 100  # with more classes, a table of predictions leaves out the probabilities
CURVE_POINTS = 200  # at most, per class


def accuracy_interval(num_correct: int, num_images: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson interval (low, high) of an accuracy, in [0, 1] (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    It is (0, 1) if there are no images.
    """
    if not num_images:
        return 0.0, 1.0
    interval = binomtest(num_correct, num_images).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def share_interval(hits: np.ndarray, groups: np.ndarray | None = None, confidence: float = 0.95) -> tuple[float, float]:
    """The interval (low, high) of the share of `hits` (N,) bool: Wilson's, or the one over `groups` (N,) int64."""
    if groups is None:
        return accuracy_interval(int(hits.sum()), len(hits), confidence)
    low, high, *_ = dependence.share(hits, groups, confidence)
    return low, high


def accuracy_in_words(accuracy: float, num_images: int, over: dependence.Share | None = None) -> str:
    """An accuracy of `num_images` images and its interval: `50.00% (95 % interval 15.00% to 85.00%, n = 4)`.

    With the interval `over` groups, the text has both, and the effective number of images.
    """
    low, high = accuracy_interval(round(accuracy * num_images), num_images)
    more = ""
    if over is not None:
        more = f"; over {over.num_groups} groups {over.low:.2%} to {over.high:.2%}, "
        more += f"as from {over.effective:.0f} independent images"
    return f"{accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}, n = {num_images}{more})"


def summary(
    labels: np.ndarray, probabilities: np.ndarray, top_k: int = 5, groups: np.ndarray | None = None
) -> dict[str, float]:
    """The metrics `test/...` of `probabilities` (N, C) for `labels` (N,) int64.

    `accuracy` with its 95 % interval `accuracy_low` and `accuracy_high`; `balanced_accuracy`, `macro_f1` and
    `mean_average_precision`, over the classes that occur in `labels`; `loss`, the mean cross-entropy in nats, always
    finite; `ece`; and `top{k}_accuracy` with k at most C - 1, left out if k would be 1. With `groups` (N,) int64, also
    the interval `accuracy_over_groups_low` and `_high`, the number of `groups`, and `effective_images`.
    """
    num_classes = probabilities.shape[1]
    known = np.arange(num_classes)
    occurring = np.unique(labels)
    predicted = probabilities.argmax(axis=1)
    over_classes = {"labels": occurring, "average": "macro", "zero_division": 0}
    numbers = {
        **accuracy("test/accuracy", predicted == labels),
        "test/balanced_accuracy": float(recall_score(labels, predicted, **over_classes)),
        "test/loss": float(log_loss(labels, _normalised(probabilities), labels=known)),
        "test/macro_f1": macro_f1(labels, predicted),
        "test/mean_average_precision": float(np.nanmean(average_precision(labels, probabilities))),
        "test/ece": calibration(labels, probabilities)[0],
    }
    if groups is not None:
        found = dependence.share(predicted == labels, groups)
        numbers |= {"test/accuracy_over_groups_low": found.low, "test/accuracy_over_groups_high": found.high}
        numbers |= {"test/groups": float(found.num_groups), "test/effective_images": found.effective}
    k = min(top_k, num_classes - 1)
    if k > 1:
        numbers[f"test/top{k}_accuracy"] = float(top_k_accuracy_score(labels, probabilities, k=k, labels=known))
    return numbers


def accuracy(name: str, correct: np.ndarray) -> dict[str, float]:
    """The share of `correct` (N,) bool as the metric `name`, and its 95 % interval as `name`_low and `name`_high."""
    low, high = accuracy_interval(int(correct.sum()), len(correct))
    return {name: int(correct.sum()) / len(correct), f"{name}_low": low, f"{name}_high": high}


def per_class(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], groups: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per class: class, precision, recall, f1, support (images), average_precision, and 95 % intervals.

    `precision_low` and `_high`, `recall_low` and `_high` are Wilson intervals. Precision is NaN (interval 0 to 1) for a
    class that is never predicted; recall and average_precision are NaN for a class without images; f1 is NaN if both
    hold. With `groups` (N,) int64, `precision_over_groups_low` and so on are the intervals over groups.
    """
    known, predicted = np.arange(len(classes)), probabilities.argmax(axis=1)
    scores = precision_recall_fscore_support(labels, predicted, labels=known, zero_division=np.nan)
    table = {"class": list(classes), **dict(zip(("precision", "recall", "f1", "support"), scores, strict=True))}
    table["average_precision"] = average_precision(labels, probabilities)
    right = np.bincount(labels[predicted == labels], minlength=len(classes))
    for name, of in (("precision", predicted), ("recall", labels)):
        counts = zip(right.tolist(), np.bincount(of, minlength=len(classes)).tolist(), strict=True)
        table[f"{name}_low"], table[f"{name}_high"] = zip(*(accuracy_interval(*each) for each in counts), strict=True)
        if groups is not None:
            found = [dependence.share(predicted[of == each] == each, groups[of == each]) for each in known]
            table[f"{name}_over_groups_low"] = [each.low for each in found]
            table[f"{name}_over_groups_high"] = [each.high for each in found]
    return pd.DataFrame(table)


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The average precision of each class against all others, (C,) in [0, 1]; NaN for a class without images."""
    values = np.full(probabilities.shape[1], np.nan)
    for label in np.unique(labels):
        values[label] = average_precision_score(labels == label, probabilities[:, label])
    return values


def precision_recall(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Precision and recall of each class in `labels` against all others, for rising thresholds of its probability.

    Columns class, threshold, precision, recall, all in [0, 1]; at most 200 rows per class, evenly spread.
    """
    return pd.concat(_curves(labels, probabilities, classes), ignore_index=True)


def _curves(labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]) -> Iterator[pd.DataFrame]:
    for label in np.unique(labels):
        precision, recall, threshold = precision_recall_curve(labels == label, probabilities[:, label])
        taken = np.unique(np.linspace(0, len(threshold) - 1, CURVE_POINTS).round().astype(int))
        columns = {"threshold": threshold[taken], "precision": precision[taken], "recall": recall[taken]}
        yield pd.DataFrame({"class": classes[label], **columns})


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (C, C) int64, rows true, columns predicted."""
    return np.asarray(confusion_matrix(labels, predicted, labels=np.arange(num_classes)), dtype=np.int64)


def most_confused(matrix: np.ndarray, classes: Sequence[str], num_pairs: int = 10) -> pd.DataFrame:
    """The `num_pairs` most frequent errors: true, predicted, count, share_of_true in [0, 1]; ties in class order."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:num_pairs]
    true, predicted = np.unravel_index(order, wrong.shape)
    table = pd.DataFrame(
        {
            "true": [classes[i] for i in true],
            "predicted": [classes[i] for i in predicted],
            "count": wrong[true, predicted],
            "share_of_true": wrong[true, predicted] / np.maximum(matrix.sum(axis=1)[true], 1),
        }
    )
    return table[table["count"] > 0]


def calibration(labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 15) -> tuple[float, pd.DataFrame]:
    """(expected calibration error in [0, 1], its equal-width bins) (Guo et al. 2017, arXiv:1706.04599).

    One row per bin (low, high]: low, high, confidence and accuracy (means, NaN in an empty bin), count.
    """
    return calibration_of(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels, num_bins)


def calibration_of(confidence: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> tuple[float, pd.DataFrame]:
    """The same from the confidence (N,) in [0, 1] of each prediction, and whether it is `correct` (N,) bool."""
    edges = np.linspace(0, 1, num_bins + 1)
    places = np.digitize(confidence, edges[1:-1], right=True)
    count = np.bincount(places, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        mean_confidence = np.bincount(places, confidence, num_bins) / count
        accuracy = np.bincount(places, correct, num_bins) / count
    error = float(np.nansum(np.abs(accuracy - mean_confidence) * count) / len(correct))
    bins = {"low": edges[:-1], "high": edges[1:], "confidence": mean_confidence, "accuracy": accuracy, "count": count}
    return error, pd.DataFrame(bins)


def macro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """The mean F1 over the classes in `true` (N,), in [0, 1]."""
    return float(f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0))


def predictions(
    names: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str] = (),
    sets: Sequence[str] = (),
) -> pd.DataFrame:
    """One row per image: name, true, predicted, correct, confidence, probability_of_true, and `group` if any has one.

    `set` if there are `sets`, a text for each image. With at most 100 classes, `p/<class>` for each class too.
    """
    predicted, rows = probabilities.argmax(axis=1), np.arange(len(labels))
    known = np.array(classes, dtype=object)
    table = pd.DataFrame(
        {
            "name": list(names),
            "true": known[labels],
            "predicted": known[predicted],
            "correct": predicted == labels,
            "confidence": probabilities[rows, predicted],
            "probability_of_true": probabilities[rows, labels],
        }
    )
    if sets:
        table["set"] = list(sets)
    if any(groups):
        table["group"] = list(groups)
    if len(classes) > PROBABILITY_COLUMNS:
        return table
    return pd.concat([table, pd.DataFrame(probabilities, columns=[f"p/{name}" for name in classes])], axis=1)


def _normalised(probabilities: np.ndarray) -> np.ndarray:
    # With reduced precision, rows do not sum to 1 exactly, and scikit-learn warns; it also clips float32 more.
    precise = probabilities.astype(np.float64)
    return precise / precise.sum(axis=1, keepdims=True)
