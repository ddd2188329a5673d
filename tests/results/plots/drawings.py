"""Tables and pictures to draw in the tests of figures, and what a drawn figure shows."""

import io
import warnings

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.results import plots

HOSTILE = ["$x_{", "a$b$c", "ünï", "_", "x" * 200, "tab\there\nline", "$$", "猫", "a\\$b$", ""]


def render(figure):
    """The figure's pixels (H, W, 4); any warning while drawing is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer := io.BytesIO(), format="png")
    return np.asarray(Image.open(buffer))


def texts(figure):
    drawn = [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]]
    return [*drawn, *(text.get_text() for text in figure.texts), figure.get_suptitle()]


def title(figure):
    return figure.get_suptitle().replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def pictures(count, height=8, width=6):
    return np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def epochs(count, valid=True):
    table = {"epoch": range(1, count + 1), "train/loss": np.linspace(2, 1, count), "train/accuracy": [0.5] * count}
    if valid:
        table |= {"valid/loss": np.linspace(2, 1.5, count), "valid/accuracy": [0.75] * count}
    return pd.DataFrame(table)


STEPS = pd.DataFrame({"step": range(8), "epoch": np.arange(1, 9) / 4, "lr": np.linspace(0, 1, 8), "loss": [2.0] * 8})


def precisions(names):
    curve = {"precision": [0.5, 1.0], "recall": [1.0, 0.4]}
    return pd.concat(pd.DataFrame({"class": name, **curve}) for name in names)


def ladder(repeat=0, num_rates=30):
    fall = 2 - np.linspace(0, 1, num_rates)
    lr = np.geomspace(1e-4, 1, num_rates)
    return pd.DataFrame({"repeat": repeat, "lr": lr, "loss": fall + 0.1, "smoothed": fall})


RATES = {"valley": 1e-3, "steepest": 1e-2, "minimum/10": 1e-1}

RISKS = pd.DataFrame({"coverage": [0.5, 1], "error": [0.1, 0.3], "error_low": [0, 0.1], "error_high": [0.3, 0.6]})


def explained(maps, count=2):
    panels = [("for the predicted class", maps), ("for the true class", np.ones_like(maps))]
    return plots.explanations(pictures(count), panels, [f"true {i}\npredicted x 0.9" for i in range(count)], "digits")


def removal(sources=("gradcam", "random map")):
    return pd.DataFrame(
        {"source": source, "order": order, "fraction": fraction, "confidence": 1 - fraction * step}
        for source in sources
        for order, step in (("most relevant first", 1), ("least relevant first", 0.5))
        for fraction in (0, 0.4, 0.8)
    )


def sliced(*names):
    table = pd.DataFrame(
        {"column": "camera", "value": names, "images": 20, "accuracy": np.linspace(0.4, 0.9, len(names))}
    )
    return table.assign(low=table["accuracy"] - 0.1, high=table["accuracy"] + 0.1, below=table["accuracy"] < 0.6)


def beside(name):
    """Epochs of two arms, the second without validation."""
    return pd.concat([epochs(2).assign(arm=f"A: {name}", run="1"), epochs(3, valid=False).assign(arm="B", run="2")])
