"""The figure of a range test: ladders or short cycles, the rules, and the suggestion."""

import numpy as np
import pandas as pd
import pytest

from pipeline.results import plots
from tests.results.plots.drawings import RATES, ladder, lines, render, title


def test_lr_range_marks_every_rule_and_highlights_the_suggestion():
    figure = plots.lr_range(ladder(), RATES, "steepest", 1e-2, "digits")
    (axes,) = figure.axes
    marked = {label: line for label, line in lines(axes).items() if ":" in label}
    rates = {label: line.get_xdata()[0] for label, line in marked.items()}
    assert rates == {"valley: 1.00e-03": 1e-3, "steepest: 1.00e-02 (suggested)": 1e-2, "minimum/10: 1.00e-01": 1e-1}
    assert max(marked.values(), key=lambda line: line.get_linewidth()).get_xdata()[0] == 1e-2
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "learning rate", "cross-entropy (nats)")
    assert title(figure) == "digits: 1.00e-02 suggested"
    render(figure)


def test_lr_range_shows_each_repeat_faint_and_its_smoothed_curve_strong():
    table = pd.concat([ladder(0), ladder(1)])
    (axes,) = plots.lr_range(table, {}, None, None, "digits").axes
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([2.1, 2.0, 2.1, 2.0])
    assert [line.get_alpha() for line in axes.lines] == [0.2, None, 0.2, None]


def test_lr_range_hides_divergence_and_shows_the_whole_fall_of_the_loss():
    table = ladder()
    table.loc[29, ["loss", "smoothed"]] = 1e6
    low, high = plots.lr_range(table, RATES, "steepest", 1e-2, "digits").axes[0].get_ylim()
    assert low < table["loss"].min()
    assert table["loss"].iloc[0] < high < 4


CYCLES = pd.DataFrame(
    {"lr": [0.05, 0.2, 0.8], "loss": [1.5, 1.0, np.inf], "accuracy": [0.3, 0.5, np.nan], "first_loss": 2.4}
)

COURSE = pd.DataFrame({"peak": np.repeat(CYCLES["lr"], 10), "update": [*range(10)] * 3, "loss": 2.0})
COURSE.loc[COURSE["peak"] == 0.8, "loss"] = 1e9


def test_short_cycles_show_their_ends_their_course_and_the_suggestion():
    figure = plots.short_cycles(CYCLES, COURSE, {"lr": 0.3, "low": 0.2, "high": 0.4}, "digits")
    ends, course, accuracy = figure.axes
    marked = lines(ends)
    assert marked["suggested: 3.00e-01"].get_xdata()[0] == 0.3
    assert list(marked["loss"].get_xdata()) == [0.05, 0.2, 0.8]
    assert max(marked["loss"].get_ydata()) < 4  # a cycle that diverged does not hide the others
    assert [label.get_text() for label in ends.get_xticklabels()] == ["5.00e-02", "2.00e-01", "8.00e-01"]
    assert list(lines(course)) == ["5.00e-02", "2.00e-01", "8.00e-01"]
    assert list(lines(accuracy)["accuracy"].get_ydata())[:2] == [0.3, 0.5]
    assert title(figure) == "digits: 3.00e-01 suggested"
    render(figure)


def test_short_cycles_without_suggestion_or_validation_say_why():
    without = CYCLES.assign(accuracy=np.nan, loss=np.inf)
    figure = plots.short_cycles(without, COURSE.head(0), dict.fromkeys(["lr", "low", "high"]), "digits", "all diverged")
    assert title(figure) == "digits: no suggestion, all diverged"
    assert len(figure.axes) == 2
    render(figure)


@pytest.mark.parametrize("first", [np.inf, np.nan])
def test_short_cycles_whose_first_loss_is_no_number_are_drawn(first):
    diverged = CYCLES.assign(accuracy=np.nan, loss=np.inf, first_loss=first)
    course = COURSE.groupby("peak").head(1).assign(loss=first)
    figure = plots.short_cycles(diverged, course, dict.fromkeys(["lr", "low", "high"]), "digits", "all diverged")
    assert title(figure) == "digits: no suggestion, all diverged"
    render(figure)


@pytest.mark.parametrize("table", [ladder(), ladder().head(1), ladder().head(0)])
def test_lr_range_without_suggestion_says_why(table):
    figure = plots.lr_range(table, dict.fromkeys(RATES), None, None, "digits", "the loss never fell")
    assert title(figure) == "digits: no suggestion, the loss never fell"
    assert not any(":" in label for label in lines(figure.axes[0]))
    render(figure)
