"""Numbers and tables of predictions agree with scikit-learn and with results computed by hand."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    classification_report,
    f1_score,
    log_loss,
    precision_recall_curve,
)

from pipeline.results import metrics


def answers(num_images=200, num_classes=5, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(num_classes, size=num_images)
    logits = draw.normal(size=(num_images, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (7, 10), (10, 10), (8857, 10_000), (1, 1)])
def test_the_interval_is_wilsons(correct, total):
    z, p = 1.959963984540054, correct / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * np.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    assert metrics.accuracy_interval(correct, total) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_summary_agrees_with_scikit_learn():
    labels, probabilities = answers()
    predicted = probabilities.argmax(axis=1)
    numbers = metrics.summary(labels, probabilities, top_k=2)
    assert numbers["test/accuracy"] == accuracy_score(labels, predicted)
    assert numbers["test/macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert numbers["test/loss"] == pytest.approx(log_loss(labels, probabilities))
    second = np.sort(probabilities, axis=1)[:, -2]
    assert numbers["test/top2_accuracy"] == (probabilities[np.arange(200), labels] >= second).mean()
    assert numbers["test/accuracy_low"] < numbers["test/accuracy"] < numbers["test/accuracy_high"]


def test_top_k_is_bounded_by_the_classes():
    labels, probabilities = answers(num_classes=3)
    assert "test/top2_accuracy" in metrics.summary(labels, probabilities, top_k=5)
    two_labels, two = answers(num_classes=2)
    assert not any("top" in name for name in metrics.summary(two_labels, two))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_predictions_absent_classes_and_a_single_image_give_finite_numbers(dtype):
    sure = np.eye(4, dtype=dtype)[[0, 1, 0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrong = metrics.summary(np.array([0, 0, 0]), sure)
        single = metrics.summary(np.array([2]), np.array([[0.1, 0.2, 0.3, 0.4]], dtype=dtype))
        table = metrics.per_class(np.array([0, 0]), sure[:2], ["a", "b", "c", "d"])
        curves = metrics.precision_recall(np.array([0, 0]), sure[:2], ["a", "b", "c", "d"])
    assert wrong["test/accuracy"] == pytest.approx(2 / 3)
    assert all(np.isfinite(value) for value in [*wrong.values(), *single.values()])
    absent = table.set_index("class").loc["c"]
    assert absent["support"] == 0
    assert absent[["precision", "recall", "f1", "average_precision"]].isna().all()
    assert np.isnan(table.set_index("class").loc["b", "recall"])  # predicted, but without images
    assert absent[["precision_low", "precision_high", "recall_low", "recall_high"]].tolist() == [0, 1, 0, 1]
    assert curves["class"].unique().tolist() == ["a"]


def test_the_loss_does_not_depend_on_the_precision_of_the_probabilities():
    labels, sure = np.array([0, 0]), np.eye(3)[[0, 1]]
    single, double = (metrics.summary(labels, sure.astype(dtype))["test/loss"] for dtype in (np.float32, np.float64))
    assert single == double
    rough_labels, probabilities = answers()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rough = metrics.summary(rough_labels, probabilities.astype(np.float16).astype(np.float32))
    assert rough["test/loss"] == pytest.approx(log_loss(rough_labels, probabilities), rel=1e-3)


def test_macro_f1_is_over_the_classes_that_occur():
    probabilities = np.eye(4)[[0, 0, 1, 1]]
    assert metrics.summary(np.array([0, 0, 1, 1]), probabilities)["test/macro_f1"] == 1.0


def test_per_class_agrees_with_scikit_learn():
    labels, probabilities = answers()
    predicted = probabilities.argmax(axis=1)
    report = classification_report(labels, predicted, output_dict=True)
    table = metrics.per_class(labels, probabilities, ["0", "1", "2", "3", "4"])
    for label, row in enumerate(table.itertuples()):
        expected = report[row[1]]
        assert row[2:6] == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"], expected["support"])
        )
        assert row.average_precision == average_precision_score(labels == label, probabilities[:, label])


def test_intervals_of_a_class_use_only_its_own_images():
    labels, sure = np.array([0] * 8 + [1] * 2), np.eye(2)[[0] * 7 + [1] * 3]
    first, second = metrics.per_class(labels, sure, ["many", "few"]).itertuples()
    assert (first.recall_low, first.recall_high) == metrics.accuracy_interval(7, 8)
    assert (first.precision_low, first.precision_high) == metrics.accuracy_interval(7, 7)
    assert (second.recall_low, second.recall_high) == metrics.accuracy_interval(2, 2)
    assert (second.precision_low, second.precision_high) == metrics.accuracy_interval(2, 3)
    assert second.recall_high - second.recall_low > first.recall_high - first.recall_low


def test_balanced_accuracy_gives_each_class_the_same_weight():
    labels, sure = np.array([0] * 8 + [1] * 2), np.eye(3)[[0] * 8 + [0, 2]]
    assert metrics.summary(labels, sure)["test/accuracy"] == 0.8
    assert metrics.summary(labels, sure)["test/balanced_accuracy"] == 0.5


def test_curves_are_those_of_scikit_learn_thinned_out():
    labels, probabilities = answers(num_images=1000)
    curves = metrics.precision_recall(labels, probabilities, list("abcde"))
    assert curves.groupby("class").size().tolist() == [200] * 5
    for label, name in enumerate("abcde"):
        curve = curves[curves["class"] == name]
        precision, recall, threshold = precision_recall_curve(labels == label, probabilities[:, label])
        at = np.searchsorted(threshold, curve["threshold"])
        assert curve["precision"].tolist() == precision[at].tolist()
        assert curve["recall"].tolist() == recall[at].tolist()
        assert curve["recall"].iloc[0] == 1
    mean = metrics.summary(labels, probabilities)["test/mean_average_precision"]
    assert mean == pytest.approx(metrics.average_precision(labels, probabilities).mean())


def test_confusion_has_true_rows_and_predicted_columns():
    matrix = metrics.confusion(np.array([0, 0, 2]), np.array([1, 1, 2]), 4)
    assert matrix.tolist() == [[0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_most_confused_lists_only_errors_most_frequent_first():
    matrix = np.array([[5, 2, 0], [0, 7, 3], [0, 0, 4]])
    table = metrics.most_confused(matrix, ["cat", "dog", "emu"])
    assert table.to_dict("list") == {
        "true": ["dog", "cat"],
        "predicted": ["emu", "dog"],
        "count": [3, 2],
        "share_of_true": [0.3, pytest.approx(2 / 7)],
    }
    assert metrics.most_confused(np.diag([3, 4]), ["a", "b"]).empty


def test_most_confused_breaks_ties_in_order_of_class_and_stops_at_num_pairs():
    matrix = np.array([[5, 2, 2], [2, 7, 0], [0, 3, 4]])
    table = metrics.most_confused(matrix, ["a", "b", "c"], num_pairs=3)
    assert list(zip(table["true"], table["predicted"], strict=True)) == [("c", "b"), ("a", "b"), ("a", "c")]


def test_a_perfect_accuracy_on_three_images_has_a_wide_interval():
    numbers = metrics.summary(np.array([0, 1, 2]), np.eye(3))
    assert numbers["test/accuracy"] == numbers["test/macro_f1"] == numbers["test/top2_accuracy"] == 1
    assert numbers["test/ece"] == 0
    assert numbers["test/loss"] == pytest.approx(0, abs=1e-12)
    assert numbers["test/accuracy_low"] < 0.5
    assert numbers["test/accuracy_high"] == 1


def test_summary_has_exactly_the_documented_keys():
    labels, probabilities = answers(num_classes=10)
    names = {"accuracy", "accuracy_low", "accuracy_high", "loss", "macro_f1", "ece", "top5_accuracy"}
    names |= {"balanced_accuracy", "mean_average_precision"}
    assert metrics.summary(labels, probabilities).keys() == {f"test/{name}" for name in names}
    names |= {"accuracy_over_groups_low", "accuracy_over_groups_high", "groups", "effective_images"}
    grouped = metrics.summary(labels, probabilities, groups=np.arange(len(labels)) // 2)
    assert grouped.keys() == {f"test/{name}" for name in names}


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    _, bins = metrics.calibration(np.array([0, 0, 0]), probabilities, num_bins=4)
    assert bins["count"].tolist() == [0, 1, 1, 1]
    assert bins["low"].tolist() == [0, 0.25, 0.5, 0.75]
    assert bins["high"].tolist() == [0.25, 0.5, 0.75, 1]


def test_calibration_equals_a_result_computed_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [1.0, 0.0]])
    labels = np.array([0, 1, 0, 0])
    error, bins = metrics.calibration(labels, probabilities, num_bins=10)
    # (0.5, 0.6]: confidence 0.55, accuracy 1; (0.9, 1]: confidence 2.9 / 3, accuracy 2 / 3
    assert error == pytest.approx((0.45 * 1 + abs(2 / 3 - 2.9 / 3) * 3) / 4)
    assert bins["count"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    assert bins["accuracy"].isna().sum() == 8


def test_predictions_have_a_row_per_image_and_probabilities_up_to_100_classes():
    labels, probabilities = answers(num_images=3, num_classes=2)
    table = metrics.predictions(["x", "y", "z"], labels, probabilities, ["a", "b"])
    assert table["name"].tolist() == ["x", "y", "z"]
    assert (table["correct"] == (table["true"] == table["predicted"])).all()
    assert table["confidence"].to_numpy() == pytest.approx(probabilities.max(axis=1))
    assert table["probability_of_true"].to_numpy() == pytest.approx(probabilities[range(3), labels])
    assert table[["p/a", "p/b"]].to_numpy() == pytest.approx(probabilities)
    many_labels, many = answers(num_images=3, num_classes=101)
    names = [str(i) for i in range(101)]
    assert not any(name.startswith("p/") for name in metrics.predictions(["x", "y", "z"], many_labels, many, names))
