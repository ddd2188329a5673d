"""The figure with the curves of a training."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from pipeline.results.plots.style import BLUE, GREY, ORANGE, SMALL, dress, sheet

SPLITS = {"train": BLUE, "valid": ORANGE}
SMOOTHED_SHARE = 0.01  # each point of the loss curve is the mean over this share of the updates


def curves(epochs: pd.DataFrame, steps: pd.DataFrame, title: str, best: int) -> Figure:
    """Loss, accuracy and learning rate over the epochs.

    `epochs` has `epoch` (from 1), `train/loss` (nats), `train/accuracy` in [0, 1] and, with a validation split,
    `valid/loss` and `valid/accuracy`; `steps` has `epoch` (fractional), `lr` and `loss`. best: the epoch to mark.
    """
    split = "valid" if _has(epochs, "valid/accuracy") else "train"
    reached = epochs.set_index("epoch")[f"{split}/accuracy"][best]
    figure = sheet(7, 8, f"{title}: {reached:.2%} {split} accuracy at epoch {best}")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True)
    _draw_loss(loss, epochs, steps)
    _draw_splits(accuracy, epochs, "accuracy")
    if split == "valid":
        accuracy.plot(best, reached, "*", color=ORANGE, markersize=13, label="best epoch")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    dress(accuracy, y="accuracy")
    rate.plot(steps["epoch"], steps["lr"], color=GREY, label=f"peak {steps['lr'].max():.2e}")
    rate.set_ylim(bottom=0)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress(rate, x="epoch", y="learning rate")
    for axes in (loss, accuracy, rate):
        axes.legend(frameon=False, fontsize=SMALL)
    return figure


def _has(epochs: pd.DataFrame, column: str) -> bool:
    return column in epochs and bool(epochs[column].notna().any())


def _draw_loss(axes: Axes, epochs: pd.DataFrame, steps: pd.DataFrame) -> None:
    window = max(1, round(SMOOTHED_SHARE * len(steps)))
    smoothed = steps["loss"].rolling(window, min_periods=1).mean()
    axes.plot(steps["epoch"], smoothed, color=BLUE, alpha=0.35, linewidth=1, label="train, each update (smoothed)")
    _draw_splits(axes, epochs, "loss")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    dress(axes, y="cross-entropy (nats)")


def _draw_splits(axes: Axes, epochs: pd.DataFrame, quantity: str) -> None:
    for split, colour in SPLITS.items():
        if _has(epochs, f"{split}/{quantity}"):
            axes.plot(epochs["epoch"], epochs[f"{split}/{quantity}"], "o-", color=colour, markersize=3, label=split)
