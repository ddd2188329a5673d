"""Figures of a comparison: calibration and curves of several trainings in one plot."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.results.plots.style import COLOURS, GREY, SMALL, dress, fit, sheet

NAME_CHARACTERS = 60
STYLES = {"valid": ("-", 1.6), "train": (":", 1.0)}


def calibrations(bins: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Accuracy against confidence for up to 6 arms, and the number of images in each bin.

    `bins` maps an arm's name to a table of `low`, `high`, `confidence`, `accuracy` (NaN if empty), in [0, 1], `count`.
    """
    figure = sheet(6, 6.5, title)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], "--", color=GREY, label="perfect calibration")
    for (name, table), colour in zip(bins.items(), COLOURS, strict=False):
        filled = table[table["count"] > 0]
        label = fit(name, NAME_CHARACTERS)
        top.plot(filled["confidence"], filled["accuracy"], "o-", color=colour, markersize=4, label=label)
        edges = [*table["low"], table["high"].iloc[-1]]
        bottom.stairs(table["count"], edges, color=colour)
    top.set_xlim(0, 1)
    top.set_ylim(0, 1.02)
    dress(top, y="accuracy")
    dress(bottom, x="confidence", y="images")
    figure.legend(loc="outside lower center", frameon=False, fontsize=SMALL)
    return figure


def curves_beside(epochs: pd.DataFrame, title: str) -> Figure:
    """Loss and accuracy over the epochs for up to 6 arms, with one line per run: validation solid, training dotted.

    `epochs` has `arm`, `run`, `epoch`, `train/loss` (nats), `train/accuracy` in [0, 1] and, with a validation split,
    `valid/loss` and `valid/accuracy`.
    """
    figure = sheet(7, 6.5, title)
    loss, accuracy = figure.subplots(2, 1, sharex=True)
    for (name, of_arm), colour in zip(epochs.groupby("arm", sort=False), COLOURS, strict=False):
        loss.plot([], [], color=colour, label=fit(str(name), NAME_CHARACTERS))
        for _, each in of_arm.groupby("run", sort=False):
            for split, (line, width) in STYLES.items():
                for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
                    if (column := f"{split}/{quantity}") in each:
                        axes.plot(each["epoch"], each[column], line, color=colour, linewidth=width)
    for split, (line, width) in STYLES.items():
        loss.plot([], [], line, color=GREY, linewidth=width, label=split)
    loss.set_yscale("log")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(loss, y="cross-entropy (nats)")
    dress(accuracy, x="epoch", y="accuracy")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=SMALL)
    return figure
