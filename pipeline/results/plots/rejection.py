"""The figure of an evaluation about unsure answers."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.results.plots.style import BLUE, GREY, ORANGE, SMALL, dress, sheet


def risk_coverage(curve: pd.DataFrame, chosen: tuple[float, float] | None, wanted: float | None, title: str) -> Figure:
    """The error of the answered images against the share that is answered, the most confident first.

    `curve` has `coverage`, `error`, `error_low` and `error_high`, in [0, 1]. `chosen` is (coverage, error) at the
    threshold, and `wanted` the error that it was chosen for; None if there is none.
    """
    figure = sheet(6, 4, title)
    axes = figure.subplots()
    coverage = 100 * curve["coverage"]
    low, error, high = (100 * curve[name] for name in ("error_low", "error", "error_high"))
    axes.fill_between(coverage, low, high, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(coverage, error, color=BLUE, marker="." if len(curve) == 1 else "", label="error, with 95 % interval")
    if wanted is not None:
        axes.axhline(100 * wanted, color=GREY, linestyle="--", linewidth=1, label=f"wanted: at most {wanted:.1%}")
    if chosen is not None:
        axes.plot(100 * chosen[0], 100 * chosen[1], "o", color=ORANGE, label="threshold from validation", clip_on=False)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, max(1.2 * max(error.max(), high.iloc[-1]), 1))  # few answers have wide intervals: cut off
    dress(axes, x="answered images (%)", y="wrong among them (%)")
    axes.legend(frameon=False, fontsize=SMALL, loc="upper left")
    return figure
