"""Figures of an evaluation: confusion, precision and recall, calibration, faithfulness."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from pipeline.results.plots.style import BLUE, COLOURS, GREY, ORANGE, SMALL, colour_bar, dress, fit, sheet

NUMBERED_CLASSES = 20  # with more classes, cells have no number
NAMED_CLASSES = 40  # with more classes, not every class is named
NAME_CHARACTERS = 18
ORDERS = {"most relevant first": "-", "least relevant first": "--"}


def confusion_matrix(matrix: np.ndarray, classes: Sequence[str], normalised: bool) -> Figure:
    """The confusion matrix of counts `matrix` (C, C), rows true.

    `normalised` shows shares of the true class, blank for a class without images. The colours follow the square root,
    so that a few errors are visible beside a full diagonal.
    """
    support = matrix.sum(axis=1, keepdims=True)
    shown = matrix / np.where(support, support, np.nan) if normalised else matrix
    side = float(np.clip(2.5 + 0.5 * len(classes), 4, 12))
    correct, total = np.trace(matrix), matrix.sum()
    figure = sheet(side + 1.2, side + 0.3, f"{correct} of {total} images correct ({correct / total:.2%})")
    axes = figure.subplots()
    highest = 1 if normalised else int(matrix.max())
    picture = axes.imshow(shown, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=highest))
    colour_bar(figure, picture, axes, "share of the true class" if normalised else "images", shrink=0.8, aspect=30)
    ticks = range(0, len(classes), -(-len(classes) // NAMED_CLASSES))
    names = [fit(classes[tick], NAME_CHARACTERS) for tick in ticks]
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    dress(axes, x="predicted class", y="true class", grid=False)
    if len(classes) <= NUMBERED_CLASSES:
        for row, column in np.argwhere(matrix):
            value = shown[row, column]
            colour = "white" if value > 0.4 * highest else "black"
            text = _share(value) if normalised else f"{value:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour, size=SMALL)
    return figure


def _share(value: float) -> str:
    """The share with two decimals. An error never shows as 0, and a share below 1 never as 1."""
    return "<.01" if value < 0.005 else ">.99" if 0.995 <= value < 1 else f"{value:.2f}"


def precision_recall(curves: pd.DataFrame, average_precision: Mapping[str, float], title: str) -> Figure:
    """Precision against recall for every class. The classes with the lowest average precision have names and colours.

    `curves` has `class`, `precision` and `recall`, in [0, 1]; `average_precision` has a value for each of its classes.
    """
    lowest_first = sorted(average_precision, key=lambda name: average_precision[name])
    named = dict(zip(lowest_first, COLOURS, strict=False))
    mean = sum(average_precision.values()) / len(average_precision)
    figure = sheet(7, 5.5, f"{title}: mean average precision {mean:.4f} of {len(average_precision)} classes")
    axes = figure.subplots()
    by_class = dict(list(curves.groupby("class", sort=False)))
    for name in lowest_first[len(named) :]:
        axes.plot(by_class[name]["recall"], by_class[name]["precision"], color=GREY, alpha=0.3)
    for name, colour in named.items():
        # The number comes first, because matplotlib ignores labels that start with an underscore.
        label = f"{average_precision[name]:.3f} {fit(name, NAME_CHARACTERS)}"
        axes.plot(by_class[name]["recall"], by_class[name]["precision"], color=colour, label=label)
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.01)
    dress(axes, x="recall: share of the class that is found", y="precision: share of the found images that are right")
    heading = "average precision" + (", the lowest" if len(named) < len(average_precision) else "")
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL, title=heading, title_fontsize=SMALL
    )
    return figure


def reliability(bins: pd.DataFrame, ece: float, title: str) -> Figure:
    """Accuracy against confidence per bin, the gap between the two, and the number of images in each bin.

    `bins` has `low`, `high`, `confidence`, `accuracy` (NaN if empty), all in [0, 1], and `count`; `ece` in [0, 1].
    """
    confidence, accuracy, count = bins["confidence"], bins["accuracy"], bins["count"]
    lean = "overconfident" if ((confidence - accuracy) * count).sum() > 0 else "underconfident"
    figure = sheet(6, 6.5, f"{title}: calibration error (ECE) {ece:.4f}" + (f", {lean}" if ece else ""))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    centre, width = (bins["high"] + bins["low"]) / 2, bins["high"] - bins["low"]
    top.bar(centre, accuracy, width, color=BLUE, edgecolor="white", label="accuracy")
    gap = {"facecolor": "none", "edgecolor": ORANGE, "hatch": "////", "label": "gap to mean confidence"}
    top.bar(centre, confidence - accuracy, width, accuracy, **gap)
    top.plot([0, 1], [0, 1], "--", color=GREY, label="perfect calibration")
    top.set_xlim(0, 1)
    top.set_ylim(0, 1)
    dress(top, y="accuracy")
    top.legend(frameon=False, fontsize=SMALL, loc="upper left")
    bars = bottom.bar(centre, count, width, color=GREY, edgecolor="white")
    bottom.bar_label(bars, [str(images or "") for images in count], size=SMALL - 2, padding=1)
    bottom.margins(y=0.2)
    dress(bottom, x="confidence", y="images")
    return figure


def faithfulness(curves: pd.DataFrame, scores: dict[str, float], title: str) -> Figure:
    """Confidence while pixels are removed, most or least relevant first, for the maps and their controls.

    `curves` has `source`, `order` (a key of `ORDERS`), `fraction` and `confidence`, in [0, 1]; `scores` maps each
    source to the mean distance between its two curves.
    """
    best = max(scores, key=lambda source: scores[source])
    figure = sheet(7, 5, f"{title}: {best} is the most faithful ({scores[best]:+.3f})")
    axes = figure.subplots()
    for order, line in ORDERS.items():
        axes.plot([], [], line, color=GREY, label=order)
    for source, colour in zip(scores, COLOURS, strict=False):
        for order, line in ORDERS.items():
            each = curves[(curves["source"] == source) & (curves["order"] == order)]
            label = f"{source}: {scores[source]:+.3f}" if line == "-" else None
            axes.plot(100 * each["fraction"], each["confidence"], line, marker=".", color=colour, label=label)
    axes.set_ylim(0, 1.02)
    dress(axes, x="pixels removed (%)", y="mean confidence in the predicted class")
    meaning = "score: how far the dashed curve lies above the solid one, on average"
    figure.legend(
        loc="outside lower center", ncols=3, frameon=False, fontsize=SMALL, title=meaning, title_fontsize=SMALL
    )
    return figure


def randomisation(table: pd.DataFrame, title: str) -> Figure:
    """How alike the maps stay as the network loses what it learned, part by part from its head down.

    `table` has `part`, `similarity` in [-1, 1] and `standard_error`, in the order in which the parts are lost.
    """
    last = table["similarity"].iloc[-1]
    figure = sheet(7, 4, f"{title}: map similarity with random weights: {last:+.2f}")
    axes = figure.subplots()
    parts = [fit(part, NAME_CHARACTERS) for part in table["part"]]
    errors = table["standard_error"].fillna(0)
    axes.errorbar(range(len(table)), table["similarity"], errors, marker=".", color=BLUE, capsize=2)
    axes.axhline(0, color=GREY, linewidth=1)
    axes.set_xticks(range(len(table)), parts, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_ylim(-1.02, 1.02)
    dress(axes, x="random from the head down to", y="rank correlation with the trained maps")
    return figure


def patch_size_by_rate(table: pd.DataFrame, name: str) -> Figure:
    """The best value of `name` for each patch size (rows, px) and range of peak rates (columns, by their lowest rate).

    Blank if no trial is complete. The colours span the values in the table.
    """
    values = table.to_numpy(dtype=float)
    highest_is_best = not name.endswith("loss")
    row, column = np.unravel_index(np.nanargmax(values if highest_is_best else -values), values.shape)
    best = f"best {name} {values[row, column]:.4f}: patch size {list(table.index)[row]}"
    figure = sheet(3 + 0.9 * table.shape[1], 2.2 + 0.6 * table.shape[0], best)
    axes = figure.subplots()
    picture = axes.imshow(values, cmap="viridis", aspect="auto")
    colour_bar(figure, picture, axes, name)
    axes.set_xticks(range(table.shape[1]), [f"{rate:.1e}" for rate in table.columns], rotation=45)
    axes.set_yticks(range(table.shape[0]), [str(size) for size in table.index])
    dress(axes, x="max_lr, from", y="patch_size (px)", grid=False)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > middle else "white"
            axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour, size=SMALL)
    return figure


def class_counts(counts: pd.DataFrame, title: str) -> Figure:
    """One bar per class, stacked by split. `counts` has `class`, then one column of image counts per split."""
    classes, splits = counts["class"].tolist(), counts.columns[1:]
    figure = sheet(min(4 + 0.3 * len(classes), 14), 4, title)
    axes = figure.subplots()
    places, below = range(len(classes)), pd.Series(0, index=counts.index)
    for split, colour in zip(splits, COLOURS, strict=False):
        axes.bar(places, counts[split], bottom=below, color=colour, label=split)
        below = below + counts[split]
    ticks = range(0, len(classes), -(-len(classes) // NAMED_CLASSES))
    names = [fit(classes[tick], NAME_CHARACTERS) for tick in ticks]
    axes.set_xticks(ticks, names, rotation=45, ha="right", rotation_mode="anchor")
    dress(axes, y="images")
    axes.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
