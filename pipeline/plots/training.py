"""Curves of a training and of a range test."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.plots.style import BLUE, COLOURS, GREY, ORANGE, styled


@styled
def curves(epochs: pd.DataFrame, steps: pd.DataFrame, title: str) -> Figure:
    """Loss, accuracy and the cycle of the rate over the epochs.

    `epochs` has `epoch`, `train/loss`, `train/accuracy` and, with a validation split, `valid/loss` and
    `valid/accuracy`; `steps` has `epoch` (fractional), `lr` and `loss`.
    """
    figure = Figure(figsize=(7, 8), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title)
    loss.plot(steps["epoch"], steps["loss"], color=BLUE, alpha=0.25, linewidth=0.7, label="each update")
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split, colour in (("train", BLUE), ("valid", ORANGE)):
            if f"{split}/{quantity}" in epochs and epochs[f"{split}/{quantity}"].notna().any():
                axes.plot(epochs["epoch"], epochs[f"{split}/{quantity}"], "o-", color=colour, markersize=3, label=split)
    if "valid/accuracy" in epochs and epochs["valid/accuracy"].notna().any():
        # Ties in accuracy go to the lower loss, as they do for the weights that are kept.
        best = epochs.sort_values(["valid/accuracy", "valid/loss"], ascending=[False, True]).iloc[0].to_dict()
        label = f"best: {best['valid/accuracy']:.2%} at epoch {best['epoch']:.0f}"
        accuracy.plot(best["epoch"], best["valid/accuracy"], "*", color=ORANGE, markersize=12, label=label)
    loss.set_ylabel("cross-entropy (nats)")
    loss.set_yscale("log")
    loss.legend()
    accuracy.set_ylabel("accuracy")
    accuracy.legend(loc="lower right")
    rate.plot(steps["epoch"], steps["lr"], color=GREY)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("epoch")
    return figure


@styled
def lr_range(
    curves: pd.DataFrame,
    suggestions: dict[str, float | None],
    chosen: str | None,
    suggestion: float | None,
    title: str,
    reason: str = "",
) -> Figure:
    """Loss over the ladder of rates, with the rate of each rule; where there is no suggestion, the reason.

    `curves` has `repeat`, `lr`, `loss` and `smoothed`; `suggestions` maps a rule to its rate.
    """
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    for _, each in curves.groupby("repeat"):
        axes.plot(each["lr"], each["loss"], color=BLUE, alpha=0.2, linewidth=0.8)
        axes.plot(each["lr"], each["smoothed"], color=BLUE, linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss (smoothed: strong)")
    if len(curves):
        _clip_divergence(axes, curves)
    for (rule, rate), colour in zip(suggestions.items(), COLOURS[1:], strict=False):
        if rate is not None:
            strong = rule == chosen
            label = f"{rule}: {rate:.2e}" + (" (suggested)" if strong else "")
            axes.axvline(
                rate, color=colour, linestyle="-" if strong else ":", linewidth=2 if strong else 1.5, label=label
            )
    if suggestion is None:
        axes.set_title(f"{title}: no suggestion\n{reason}", wrap=True)
    else:
        axes.set_title(f"{title}: {suggestion:.2e} suggested")
        axes.legend()
    return figure


def _clip_divergence(axes: Axes, curves: pd.DataFrame) -> None:
    low = curves["smoothed"].min()
    start = curves.groupby("repeat")["smoothed"].first().max()
    axes.set_ylim(low - 0.15 * (start - low) - 1e-3, start + 0.6 * (start - low) + 1e-3)
