"""Contact sheets: images as a person sees them, with what the model made of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.plots.style import shorten, styled

COLUMNS = 6
HEAT = "inferno"


@styled
def gallery(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """A sheet of `images` (N, 3, H, W) uint8, each under its caption."""
    rows = max(1, -(-len(images) // COLUMNS))
    figure = Figure(figsize=(9, 0.6 + 1.7 * rows), layout="constrained")
    figure.suptitle(title)
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        _show(axes, image)
        axes.set_title(shorten(caption, 34), size=7, wrap=True)
    return figure


@styled
def explanations(
    images: np.ndarray, panels: Sequence[tuple[str, np.ndarray]], captions: Sequence[str], title: str
) -> Figure:
    """A row per image (N, 3, H, W) uint8: the image, then each panel's map (N, H, W) in [0, 1] laid over it.

    A map that is zero throughout is said to be so, over the image alone.
    """
    rows, columns = max(1, len(images)), 1 + len(panels)
    figure = Figure(figsize=(1.6 + 2.0 * columns, 0.9 + 1.9 * rows), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    heat = None
    for row, image in enumerate(images):
        _show(grid[row, 0], image)
        lines = "\n".join(shorten(line, 30) for line in captions[row].splitlines())
        grid[row, 0].set_title(lines, size=8)
        for axes, (heading, maps) in zip(grid[row, 1:], panels, strict=True):
            axes.set_title(heading if row == 0 else "", size=8)
            grey = np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0).astype(np.uint8)
            _show(axes, grey)
            if maps[row].any():
                heat = axes.imshow(maps[row], cmap=HEAT, vmin=0, vmax=1, alpha=0.55)
            else:
                label = {"ha": "center", "va": "center", "transform": axes.transAxes, "size": 8}
                axes.text(0.5, 0.5, "no positive\nevidence", bbox={"color": "white", "alpha": 0.8}, **label)
    if heat is not None:
        figure.colorbar(heat, ax=grid, label="relevance within the image", shrink=min(1.0, 3 / rows), pad=0.02)
    return figure


@styled
def attention_matrices(images: np.ndarray, matrices: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """A row per image (N, 3, H, W) uint8: the image, then its K attention matrices, `matrices` (N, K, M, M)."""
    rows, blocks = max(1, len(images)), matrices.shape[1]
    figure = Figure(figsize=(1.6 + 1.7 * (1 + blocks), 0.9 + 1.9 * rows), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, 1 + blocks, squeeze=False)
    highest = float(matrices.max(initial=0))
    for axes in grid.flat:
        axes.set_axis_off()
    picture = None
    for row, image in enumerate(images):
        _show(grid[row, 0], image)
        grid[row, 0].set_title("\n".join(shorten(line, 30) for line in captions[row].splitlines()), size=8)
        for block, axes in enumerate(grid[row, 1:]):
            picture = axes.imshow(matrices[row, block], cmap="viridis", vmin=0, vmax=highest)
            axes.set_title(f"block {block + 1}" if row == 0 else "", size=8)
    if picture is not None:
        figure.colorbar(picture, ax=grid, label="attention", shrink=min(1.0, 3 / rows), pad=0.02)
    return figure


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
