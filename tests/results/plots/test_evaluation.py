"""Figures of an evaluation: precision and recall, confusion, calibration, errors over coverage, slices, sets."""

import numpy as np
import pandas as pd
import pytest

from pipeline.results import dependence, metrics, plots
from tests.results.plots.drawings import HOSTILE, RISKS, lines, precisions, render, sliced, title


def test_precision_recall_names_the_lowest_classes_and_draws_all():
    values = {f"class {i}": i / 10 for i in range(10)}
    figure = plots.precision_recall(precisions(values), values, "digits")
    render(figure)
    assert title(figure) == "digits: mean average precision 0.4500 of 10 classes"
    (axes,) = figure.axes
    named = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert named == [f"{i / 10:.3f} class {i}" for i in range(6)]
    assert len(axes.lines) == 10


def test_precision_recall_accepts_any_class_names():
    values = dict.fromkeys(HOSTILE, 0.5)
    figure = plots.precision_recall(precisions(values), values, "$x_{")
    assert render(figure).std() > 10
    assert len(figure.legends[0].get_texts()) == 6


@pytest.mark.parametrize("normalised", [False, True])
def test_confusion_shows_counts_or_shares_with_true_classes_as_rows(normalised):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    figure = plots.confusion_matrix(matrix, ["a", "b", "c"], normalised)
    axes = figure.axes[0]
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    values = ["0.75", "0.25", "0.50", "0.50"] if normalised else ["3", "1", "2", "2"]
    assert cells == dict(zip([(0, 0), (0, 1), (2, 1), (2, 2)], values, strict=True))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert title(figure) == "5 of 8 images correct (62.50%)"
    render(figure)


def test_only_an_exact_share_is_shown_as_0_or_1():
    figure = plots.confusion_matrix(np.array([[996, 4], [0, 1000]]), ["a", "b"], normalised=True)
    assert [text.get_text() for text in figure.axes[0].texts] == [">.99", "<.01", "1.00"]


def test_a_class_without_images_is_blank_only_in_the_normalised_matrix():
    matrix = np.array([[3, 1], [0, 0]])
    shares, counts = (
        plots.confusion_matrix(matrix, ["a", "b"], n).axes[0].images[0].get_array() for n in (True, False)
    )
    assert np.ma.getmaskarray(shares).tolist() == [[False, False], [True, True]]
    assert counts.tolist() == [[3, 1], [0, 0]]


def test_a_hundred_classes_are_thinned_and_unnumbered():
    names = [f"class {i}" for i in range(100)]
    figure = plots.confusion_matrix(np.eye(100, dtype=int), names, normalised=False)
    axes = figure.axes[0]
    assert len(axes.texts) == 0
    shown = {int(tick): label.get_text() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert 20 <= len(shown) <= 40
    assert all(name == names[tick] for tick, name in shown.items())
    twenty = plots.confusion_matrix(np.eye(20, dtype=int), names[:20], normalised=False)
    assert len(twenty.axes[0].texts) == 20
    assert twenty.get_figwidth() < figure.get_figwidth() * 1.01
    render(figure)


def test_reliability_shows_accuracy_gap_and_counts_and_survives_empty_bins():
    ece, bins = metrics.calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), num_bins=10)
    figure = plots.reliability(bins, ece, "digits")
    diagram, histogram = figure.axes
    accuracy, gap = diagram.containers
    # 0.8 is wrong: accuracy 0 in (0.7, 0.8]; 0.9 is right: accuracy 1 in (0.8, 0.9].
    assert [bar.get_height() for bar in accuracy][7:9] == [0, 1]
    assert [bar.get_y() + bar.get_height() for bar in gap][7:9] == pytest.approx([0.8, 0.9])
    assert [bar.get_height() for bar in histogram.patches] == bins["count"].tolist()
    assert [text.get_text() for text in histogram.texts] == ["", "", "", "", "", "", "", "1", "1", ""]
    assert (diagram.get_ylabel(), histogram.get_ylabel(), histogram.get_xlabel()) == (
        "accuracy",
        "images",
        "confidence",
    )
    assert title(figure) == "digits: calibration error (ECE) 0.4500, overconfident"
    render(figure)


def test_errors_over_coverage_show_the_interval_and_the_threshold_with_and_without_one():
    figure = plots.risk_coverage(RISKS, (0.5, 0.1), 0.02, "digits")
    render(figure)
    (axes,) = figure.axes
    line, wanted, chosen = axes.lines
    assert line.get_xdata().tolist() == [50, 100] and line.get_ydata().tolist() == pytest.approx([10, 30])
    assert (chosen.get_xdata(), chosen.get_ydata()) == ([50], [10])
    assert set(wanted.get_ydata()) == {2}
    assert len(plots.risk_coverage(RISKS, None, None, "digits").axes[0].lines) == 1


def test_reliability_names_underconfidence_and_perfect_calibration():
    sure, unsure = (np.array([[p, 1 - p]] * 2) for p in (1.0, 0.6))
    for probabilities, ending in ((sure, "0.0000"), (unsure, "0.4000, underconfident")):
        ece, bins = metrics.calibration(np.array([0, 0]), probabilities)
        assert title(plots.reliability(bins, ece, "digits")).endswith(ending)


def test_slices_are_drawn_from_the_worst_down_with_their_intervals():
    figure = plots.slices(sliced("A", "B"), 0.75)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["camera A (20)", "camera B (20)"]
    assert axes.yaxis_inverted()
    points = {float(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"}
    assert points == {0: 0.4, 1: 0.9}
    assert title(figure) == "Accuracy of 2 slices: 1 below that of all images"
    assert title(plots.slices(sliced(*map(str, range(50))), 0.75)).startswith("Accuracy of the worst 30 of 50 slices")
    render(figure)


def test_calibrations_are_drawn_in_one_plot_without_empty_bins():
    ece, bins = metrics.calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), num_bins=10)
    figure = plots.calibrations({"A": bins, "B": bins.assign(accuracy=1.0)}, f"Calibration: A {ece:.4f}")
    drawn = lines(figure.axes[0])
    assert drawn["A"].get_xdata().tolist() == pytest.approx([0.8, 0.9])
    assert drawn["A"].get_ydata().tolist() == [0, 1]
    assert drawn["B"].get_ydata().tolist() == [1, 1]
    render(figure)


@pytest.mark.parametrize("is_hit", [True, False])
def test_shares_of_groups_that_are_all_hits_or_none_are_drawn(is_hit):
    draw = np.random.default_rng(0)
    groups = [np.repeat([0, 1, 2, 3], draw.integers(1, 9, 4)) for _ in range(20)]
    shares = [dependence.share(np.full(len(each), is_hit), each) for each in groups]
    ends = {"coverage_low": [each.low for each in shares], "coverage_high": [each.high for each in shares]}
    table = pd.DataFrame({"class": [*map(str, range(20))], "coverage": float(is_hit), **ends})
    render(plots.prediction_sets(table, 0.9))
