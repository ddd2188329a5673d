"""Many shares below each other, each with its interval: slices, and classes at their thresholds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.results.plots.style import BLUE, GREY, ORANGE, SMALL, dress, fit, sheet

MOST_ROWS = 30
NAME_CHARACTERS, NAME_LINES = 36, 2
BESIDE = 0.15  # distance of the two marks of a class from the middle of its row
ROOM = 0.03  # of accuracy, left of the lowest interval


def slices(table: pd.DataFrame, accuracy: float) -> Figure:
    """The accuracy of each slice with its interval, the worst at the top, and a line at the `accuracy` of all images.

    `table` has `column`, `value`, `images`, `accuracy`, `low`, `high` and `below`, the worst first. At most 30 are
    shown.
    """
    shown = table.head(MOST_ROWS)
    number = f"{len(table)} slices" if len(shown) == len(table) else f"the worst {len(shown)} of {len(table)} slices"
    worse = int(table["below"].sum())
    figure = sheet(8, 1.5 + 0.36 * len(shown), f"Accuracy of {number}: {worse} below that of all images")
    axes = figure.subplots()
    for is_below, colour in ((True, ORANGE), (False, BLUE)):
        rows = shown[shown["below"] == is_below]
        ends = [rows["accuracy"] - rows["low"], rows["high"] - rows["accuracy"]]
        axes.errorbar(rows["accuracy"], rows.index, xerr=ends, fmt="o", capsize=2, color=colour)
    axes.axvline(accuracy, linestyle="--", color=GREY, label=f"all images {accuracy:.2%}")
    described = zip(shown["column"], shown["value"], shown["images"], strict=True)
    names = [fit(f"{column} {value} ({images})", NAME_CHARACTERS, NAME_LINES) for column, value, images in described]
    axes.set_yticks(range(len(shown)), names, size=SMALL)
    axes.invert_yaxis()
    axes.set_xlim(min(shown["low"].min(), accuracy) - ROOM, 1 + ROOM / 3)
    dress(axes, x="accuracy, with 95 % intervals for all slices together; in brackets: images")
    axes.legend(frameon=False, fontsize=SMALL, loc="lower left")
    return figure


def operating_points(table: pd.DataFrame, what: str, wanted: float) -> Figure:
    """Recall and precision of each class on test at its threshold, with intervals, and a line at the `wanted` value.

    what: `recall` or `precision`, which has a wanted value. `table` has `class`, `recall`, `precision`, and `_low` and
    `_high` of both. At most 30 classes are shown, those with the lowest precision.
    """
    shown = table.sort_values("precision", kind="stable").head(MOST_ROWS).reset_index(drop=True)
    figure = sheet(8, 1.5 + 0.36 * len(shown), f"At the thresholds for {what} {wanted:.0%}, chosen on validation")
    axes = figure.subplots()
    for name, colour, offset in (("recall", BLUE, -BESIDE), ("precision", ORANGE, BESIDE)):
        _marks(axes, shown, name, colour, offset)
    _of_classes(axes, shown, wanted, f"wanted {what}")
    return figure


def prediction_sets(table: pd.DataFrame, wanted: float) -> Figure:
    """The coverage of the sets of each class with its interval, and a line at the `wanted` coverage of all images.

    `table` has `class`, `coverage`, `coverage_low` and `coverage_high`. At most 30 classes are shown, the lowest first.
    """
    shown = table.sort_values("coverage", kind="stable").head(MOST_ROWS).reset_index(drop=True)
    figure = sheet(8, 1.5 + 0.36 * len(shown), "How many sets hold the class, for the images of each class")
    axes = figure.subplots()
    _marks(axes, shown, "coverage", BLUE)
    _of_classes(axes, shown, wanted, "wanted for all images together")
    return figure


def _marks(axes: Axes, shown: pd.DataFrame, name: str, colour: str, offset: float = 0) -> None:
    """A mark with its interval in the row of each class that has the number `name`."""
    rows = shown.dropna(subset=name)
    ends = [rows[name] - rows[f"{name}_low"], rows[f"{name}_high"] - rows[name]]
    axes.errorbar(rows[name], rows.index + offset, xerr=ends, fmt="o", capsize=2, color=colour, label=name)


def _of_classes(axes: Axes, shown: pd.DataFrame, wanted: float, words: str) -> None:
    """Names the rows after their classes, the first at the top, and draws a line at the `wanted` share."""
    axes.axvline(wanted, linestyle="--", color=GREY, label=words)
    axes.set_yticks(range(len(shown)), [fit(name, NAME_CHARACTERS, NAME_LINES) for name in shown["class"]], size=SMALL)
    axes.invert_yaxis()
    dress(axes, x="on test, with 95 % interval")
    axes.legend(frameon=False, fontsize=SMALL, loc="best")
