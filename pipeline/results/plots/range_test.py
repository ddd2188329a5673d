"""Figures of a range test: losses on ladders of rates, or short cycles at several rates."""

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from pipeline.results.plots.style import BLUE, COLOURS, GREEN, ORANGE, SMALL, dress, sheet

SMOOTHED_SHARE = 0.1  # each point of a cycle's curve is the mean over this share of its updates
ROOM = 1.3  # times the largest first loss: the axis of losses ends there


def lr_range(
    curves: pd.DataFrame,
    suggestions: dict[str, float | None],
    chosen: str | None,
    suggestion: float | None,
    title: str,
    reason: str = "",
) -> Figure:
    """Loss over the ladder of rates, with the rate of each rule. If there is no suggestion, the title says why.

    `curves` has `repeat`, `lr`, `loss` and `smoothed` (nats); `suggestions` maps each rule to its rate, or to None if
    the curves allow none; `chosen` names the rule that gave `suggestion`.
    """
    finding = f"no suggestion, {reason}" if suggestion is None else f"{suggestion:.2e} suggested"
    figure = sheet(7.5, 5, f"{title}: {finding}")
    axes = figure.subplots()
    for repeat, each in curves.groupby("repeat"):
        first = repeat == curves["repeat"].iloc[0]
        axes.plot(
            each["lr"], each["loss"], color=BLUE, alpha=0.2, linewidth=0.8, label="each update" if first else None
        )
        axes.plot(each["lr"], each["smoothed"], color=BLUE, linewidth=1.6, label="smoothed" if first else None)
    for (rule, rate), colour in zip(suggestions.items(), COLOURS[1:], strict=False):
        if rate is not None:
            line, width, note = ("-", 2.2, " (suggested)") if rule == chosen else (":", 1.5, "")
            axes.axvline(rate, color=colour, linestyle=line, linewidth=width, label=f"{rule}: {rate:.2e}{note}")
    axes.set_xscale("log")
    dress(axes, x="learning rate", y="cross-entropy (nats)")
    if len(curves):
        _leave_out_divergence(axes, curves)
        axes.legend(frameon=False, fontsize=SMALL, loc="lower left")
    return figure


def short_cycles(
    cycles: pd.DataFrame, updates: pd.DataFrame, choice: Mapping[str, float | None], title: str, reason: str = ""
) -> Figure:
    """Left, the end of each short cycle over its peak rate; right, the loss during each cycle.

    `cycles` has `lr`, `loss` (nats), `accuracy` in [0, 1] or missing, and `first_loss`; `updates` has `peak`, `update`
    and `loss`. `choice` has the suggestion `lr` and the band of rates `low` to `high` that do about as well, or None.
    """
    suggestion, low, high = choice["lr"], choice["low"], choice["high"]
    finding = f"no suggestion, {reason}" if suggestion is None else f"{suggestion:.2e} suggested"
    figure = sheet(9, 4.2, f"{title}: {finding}")
    ends, course = figure.subplots(1, 2)
    first = cycles["first_loss"].max()
    most = ROOM * first if math.isfinite(first) else None  # None: no cycle began with a number
    ends.plot(cycles["lr"], cycles["loss"].clip(upper=most), "o-", color=BLUE, label="loss")
    if low is not None and high is not None:
        ends.axvspan(low, high, color=GREEN, alpha=0.15, label="about as well")
    if suggestion is not None:
        ends.axvline(suggestion, color=GREEN, linewidth=2.2, label=f"suggested: {suggestion:.2e}")
    ends.set_xscale("log")
    ends.set_xticks(cycles["lr"], [f"{rate:.2e}" for rate in cycles["lr"]])
    ends.xaxis.set_minor_formatter(NullFormatter())
    ends.set_ylim(top=most)
    dress(ends, x="peak learning rate", y="cross-entropy at the end (nats)")
    if cycles["accuracy"].notna().any():
        beside = ends.twinx()
        beside.plot(cycles["lr"], cycles["accuracy"], "D--", color=ORANGE, markersize=4, label="accuracy")
        beside.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        dress(beside, y="validation accuracy", grid=False)
        beside.spines["right"].set_visible(True)
    figure.legend(*_labels(figure.axes), frameon=False, fontsize=SMALL, loc="outside lower left", ncols=4)
    _draw_course(course, updates, most)
    return figure


def _draw_course(axes: Axes, updates: pd.DataFrame, most: float | None) -> None:
    peaks = sorted(updates["peak"].unique())
    for place, peak in enumerate(peaks):
        own = updates[updates["peak"] == peak]
        smoothed = own["loss"].rolling(max(1, round(SMOOTHED_SHARE * len(own))), min_periods=1).mean()
        colour = colormaps["viridis"](place / max(1, len(peaks) - 1))
        axes.plot(own["update"], smoothed.clip(upper=most), color=colour, linewidth=1.5, label=f"{peak:.2e}")
    dress(axes, x="update", y="train loss (nats)")
    if peaks:
        axes.legend(frameon=False, fontsize=SMALL, title="peak rate", title_fontsize=SMALL)


def _labels(axes: list[Axes]) -> tuple[list, list[str]]:
    pairs = [pair for each in (axes[0], *axes[2:]) for pair in zip(*each.get_legend_handles_labels(), strict=True)]
    return [handle for handle, _ in pairs], [label for _, label in pairs]


def _leave_out_divergence(axes: Axes, curves: pd.DataFrame) -> None:
    """Sets the limits by the first and lowest losses, because a diverged loss may be a million times higher."""
    start, lowest = curves.groupby("repeat")["smoothed"].first().max(), curves["loss"].min()
    margin = max(start - lowest, start / 4) / 2
    axes.set_ylim(lowest - margin / 5, start + margin)
