"""The figures about spoiled images."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pipeline.results.plots.images import show
from pipeline.results.plots.style import BLUE, GREY, LABEL, ORANGE, SMALL, dress, sheet

COLUMNS = 3
CELL = 1.1  # side of an image (inches)


def robustness(table: pd.DataFrame, reference: pd.DataFrame | None, title: str) -> Figure:
    """Accuracy over severity, one small chart per corruption, with the clean accuracy and the reference network's.

    Both tables have `corruption`, `severity`, `accuracy`, `low` and `high`, and a row with severity 0.
    """
    names = list(dict.fromkeys(table.loc[table["severity"] > 0, "corruption"]))
    rows = math.ceil(len(names) / COLUMNS)
    figure = sheet(8, 0.8 + 1.9 * rows, title)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True)
    for axes in grid.flat[len(names) :]:
        axes.set_visible(False)
    lines = [
        (table, BLUE, "-", "this network"),
        *([] if reference is None else [(reference, ORANGE, "--", "reference")]),
    ]
    for axes, name in zip(grid.flat, names, strict=False):
        for each, colour, style, label in lines:
            own = each[(each["corruption"] == name) | (each["severity"] == 0)]
            axes.fill_between(own["severity"], own["low"], own["high"], color=colour, alpha=0.15, linewidth=0)
            axes.plot(own["severity"], own["accuracy"], style, marker=".", color=colour, label=label)
        axes.axhline(table["accuracy"].iloc[0], color=GREY, linestyle=":", linewidth=1)
        axes.set_title(name, size=LABEL)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xticks(range(6))
        axes.set_ylim(0, 1.02)
        dress(axes)
    figure.supxlabel("severity (0: clean); band: 95 % interval", size=LABEL)
    figure.supylabel("test accuracy", size=LABEL)
    if reference is not None:
        grid[0, 0].legend(frameon=False, fontsize=SMALL, loc="lower left")
    return figure


def corruptions(images: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """A contact sheet: a row per corruption, with the clean image and its severities.

    images: (C, 1 + S, 3, H, W) uint8.
    """
    rows, columns = images.shape[:2]
    figure = sheet(1 + CELL * columns, 0.7 + CELL * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, name in enumerate(names):
        for column in range(columns):
            axes = grid[row, column]
            show(axes, images[row, column])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        grid[row, 0].set_ylabel(name, size=SMALL, rotation=0, ha="right", va="center")
    for column in range(columns):
        grid[0, column].set_title("clean" if column == 0 else str(column), size=SMALL, y=1, pad=3)
    return figure
