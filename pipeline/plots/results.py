"""Figures of an evaluation: confusion, calibration, faithfulness."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.plots.style import BLUE, COLOURS, GREY, ORANGE, shorten, styled

NUMBERED_CLASSES = 20  # classes up to which cells carry their number
NAMED_CLASSES = 40  # classes up to which every one is named


@styled
def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], normalised: bool) -> Figure:
    """`matrix` (C, C) of counts, rows true; `normalised` shows shares of the true class, blank without any."""
    num_classes = len(classes)
    with np.errstate(invalid="ignore"):
        shown = matrix / matrix.sum(axis=1, keepdims=True) if normalised else matrix.astype(float)
    side = float(np.clip(2.5 + 0.5 * num_classes, 4, 12))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.grid(visible=False)
    picture = axes.imshow(shown, cmap="Blues", vmin=0, vmax=1 if normalised else None)
    figure.colorbar(picture, ax=axes, label="share of the true class" if normalised else "images", shrink=0.8)
    every = -(-num_classes // NAMED_CLASSES)
    ticks = range(0, num_classes, every)
    names = [shorten(classes[tick], 18) for tick in ticks]
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} test images on the diagonal")
    if num_classes <= NUMBERED_CLASSES:
        dark = np.nanmax(shown, initial=0) / 2
        for (row, column), value in np.ndenumerate(shown):
            if np.isfinite(value) and value > 0:
                text = f"{value:.2f}" if normalised else f"{value:.0f}"
                axes.text(
                    column, row, text, ha="center", va="center", color="white" if value > dark else "black", size=8
                )
    return figure


@styled
def reliability(bins: pd.DataFrame, ece: float, title: str) -> Figure:
    """Accuracy against confidence per bin, the gap to perfect calibration, and how many images stand behind each bin.

    `bins` has `low`, `high`, `confidence`, `accuracy` (NaN where empty) and `count`.
    """
    figure = Figure(figsize=(5, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = bins["high"] - bins["low"]
    centre = (bins["high"] + bins["low"]) / 2
    accuracy, confidence = bins["accuracy"], bins["confidence"]
    top.bar(centre, accuracy, width, color=BLUE, edgecolor="white", label="accuracy")
    top.bar(centre, confidence - accuracy, width, accuracy, color=ORANGE, alpha=0.4, edgecolor=ORANGE, label="gap")
    top.plot([0, 1], [0, 1], "--", color=GREY, label="perfect")
    top.set_xlim(0, 1)
    top.set_ylim(0, 1)
    top.set_ylabel("accuracy")
    top.set_title(f"{title}: ECE {ece:.4f}")
    top.legend(loc="upper left")
    bottom.bar(centre, bins["count"], width, color=GREY, edgecolor="white")
    bottom.set_xlabel("confidence")
    bottom.set_ylabel("images")
    return figure


@styled
def faithfulness(curves: pd.DataFrame, scores: dict[str, float], title: str) -> Figure:
    """Confidence as pixels are removed, most and least relevant first, for the maps and their controls.

    `curves` has `source`, `order`, `fraction` and `confidence`; `scores` the score of each source.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for source, colour in zip(scores, COLOURS, strict=False):
        for order, line in (("most relevant first", "-"), ("least relevant first", "--")):
            each = curves[(curves["source"] == source) & (curves["order"] == order)]
            label = f"{source}: {scores[source]:.3f}" if line == "-" else None
            axes.plot(100 * each["fraction"], each["confidence"], line, color=colour, label=label)
    axes.set_xlabel("pixels removed (%); solid: most relevant first, dashed: least relevant first")
    axes.set_ylabel("mean confidence in the predicted class")
    axes.set_ylim(0, 1.02)
    axes.set_title(f"{title}: how much the maps matter to the model")
    axes.legend(title="score (dashed minus solid)")
    return figure
