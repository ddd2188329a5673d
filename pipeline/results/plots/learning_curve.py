"""The figure of a learning curve."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter, StrMethodFormatter

from pipeline.results.learning_curve import Check
from pipeline.results.plots.style import BLUE, GREY, ORANGE, SMALL, dress, sheet


def learning_curve(measured: pd.DataFrame, forecast: pd.DataFrame, check: Check, title: str) -> Figure:
    """The accuracy over the number of images, as measured and as the law continues it.

    Both tables have `images`, `accuracy`, `low` and `high`; `check` is the prediction of the largest measured size.
    """
    figure = sheet(7, 4.5, title)
    axes = figure.subplots()
    all_images = measured["images"].iloc[-1]
    axes.fill_between(forecast["images"], forecast["low"], forecast["high"], color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(forecast["images"], forecast["accuracy"], color=BLUE, label="power law, with 95 % interval")
    axes.errorbar(measured["images"], measured["accuracy"], yerr=_ends(measured), fmt="o", capsize=3, color=BLUE)
    predicted, low, high = check.predicted
    axes.errorbar(
        all_images,
        predicted,
        yerr=[[max(0, predicted - low)], [max(0, high - predicted)]],
        fmt="D",
        mfc="none",
        capsize=3,
        color=ORANGE,
        label="prediction from the smaller sizes",
    )
    axes.axvline(all_images, color=GREY, linestyle="--", linewidth=1, label="all images of today")
    axes.set_xscale("log")
    axes.set_xticks(sorted({*measured["images"], forecast["images"].iloc[-1]}))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(max(0, measured["low"].min() - 0.05), min(1.005, forecast["high"].max() + 0.02))
    dress(axes, x="train images", y="test accuracy")
    axes.legend(frameon=False, fontsize=SMALL, loc="lower right")
    return figure


def _ends(table: pd.DataFrame) -> list[pd.Series]:
    """Lengths of the error bars, which must not be negative."""
    return [(table["accuracy"] - table["low"]).clip(lower=0), (table["high"] - table["accuracy"]).clip(lower=0)]
