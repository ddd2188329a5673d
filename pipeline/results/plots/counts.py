"""How many images each class has."""

import pandas as pd
from matplotlib.figure import Figure

from pipeline.results.plots.style import COLOURS, SMALL, dress, fit, sheet

NAMED_CLASSES = 40  # classes up to which every one is named
NAME_CHARACTERS = 18


def class_counts(counts: pd.DataFrame, title: str) -> Figure:
    """A bar per class, made up of its images in each split: `counts` has `class`, then a column of images per split."""
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
