"""Contact sheets: images as a person sees them, with what the model made of them."""

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from pipeline.results.plots.style import SMALL, colour_bar, fit, sheet

MAX_COLUMNS, MIN_COLUMNS = 8, 4  # of a gallery
CELL = 1.6  # inches a side of an image
SCREEN, GAP = 1.5, 0.2  # width by height of what is seen at a time; between images in a row, in cells
CELL_CHARACTERS = 26  # beside each other in a cell
WATCHED_SIDE, WATCHED_GAP = 96, 2  # px of a watched image, at least half of it, and between two


def _heat() -> ListedColormap:
    """Black to yellow, the more transparent the lower, so that the picture shows wherever there is little to say."""
    levels = np.linspace(0, 1, 256)
    colours = mpl.colormaps["inferno"](0.25 + 0.7 * levels)
    colours[:, 3] = 0.85 * np.sqrt(levels)
    return ListedColormap(colours, "heat")


HEAT = _heat()


def heat(maps: np.ndarray) -> np.ndarray:
    """`maps` (N, H, W) in [0, 1] as colours to lay over an image, (N, 4, H, W) uint8."""
    colours: np.ndarray = HEAT(maps, bytes=True)
    return colours.transpose(0, 3, 1, 2)


def gallery(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """A sheet of `images` (N, 3, H, W) uint8, each under its caption; without any, it says that none is wrong."""
    columns = min(max(math.ceil(math.sqrt(len(images))), MIN_COLUMNS), MAX_COLUMNS)
    rows = math.ceil(len(images) / columns)
    figure = sheet(CELL * columns, 0.6 + (CELL + 0.25) * rows, title)
    if not rows:
        figure.text(0.5, 0.3, "no misclassified images", ha="center", va="center", size=SMALL)
        return figure
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, caption in zip(grid.flat, images, captions, strict=False):
        _show(axes, image)
        _head(axes, fit(caption, CELL_CHARACTERS, lines=2), SMALL - 1)
    return figure


def explanations(
    images: np.ndarray, panels: Sequence[tuple[str, np.ndarray]], captions: Sequence[str], title: str
) -> Figure:
    """Each image (N, 3, H, W) uint8, and beside it each panel's map (N, H, W) in [0, 1] laid over it.

    A map that is zero throughout is said to be so, over the image alone. N is at least 1.
    """
    figure, grid = _groups(images, captions, title, [heading for heading, _ in panels])
    scale = Normalize(0, 1)
    for row, image in enumerate(images):
        for axes, (_, maps) in zip(grid[row, 1:], panels, strict=True):
            _show(axes, _dimmed(image))
            if maps[row].any():
                axes.imshow(maps[row], cmap=HEAT, norm=scale, interpolation="nearest")
            else:
                _remark(axes, "nothing\nstands out")
    colour_bar(figure, ScalarMappable(scale, HEAT), grid, "relevance within the image", **_beside(figure))
    return figure


def attention_matrices(images: np.ndarray, matrices: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Each image (N, 3, H, W) uint8, and beside it its K attention matrices, `matrices` (N, K, M, M) >= 0.

    All share one scale of colours. N is at least 1.
    """
    headings = [f"block {block + 1}" for block in range(matrices.shape[1])]
    figure, grid = _groups(images, captions, title, headings)
    scale = Normalize(0, matrices.max())
    for axes, matrix in zip(grid[:, 1:].flat, matrices.reshape(-1, *matrices.shape[2:]), strict=True):
        axes.imshow(matrix, cmap="viridis", norm=scale, interpolation="nearest")
    mappable = ScalarMappable(scale, "viridis")
    colour_bar(figure, mappable, grid, "attention from row to column", **_beside(figure))
    return figure


def watched(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """One picture (H', W', 3) uint8 of `images` (N, 3, H, W) uint8 in a row, below each its map (N, H, W) in [0, 1].

    A pixel of an image is a block of several, so that a small image can be seen.
    """
    heat = HEAT(maps)
    grey = np.stack([_dimmed(image) for image in images]).transpose(0, 2, 3, 1)
    covered = grey * (1 - heat[..., 3:]) + 255 * heat[..., :3] * heat[..., 3:]
    rows = np.stack([images.transpose(0, 2, 3, 1), np.rint(covered).astype(np.uint8)])
    block = max(1, WATCHED_SIDE // images.shape[-1])
    tiles = rows.repeat(block, axis=2).repeat(block, axis=3)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, WATCHED_GAP), (0, WATCHED_GAP), (0, 0)), constant_values=255)
    _, count, height, width, _ = tiles.shape
    return tiles.transpose(0, 2, 1, 3, 4).reshape(2 * height, count * width, 3)


def _groups(
    images: np.ndarray, captions: Sequence[str], title: str, headings: Sequence[str]
) -> tuple[Figure, np.ndarray]:
    """Axes (N, 1 + M): of each image itself, under its caption, and beside it one, still empty, per heading.

    So many images stand in a row as make the sheet fit a screen.
    """
    count, columns = len(images), 1 + len(headings)
    across = min(range(1, count + 1), key=lambda n: abs(math.log(_width(n * columns) / _height(count, n) / SCREEN)))
    rows = math.ceil(count / across)
    figure = sheet(_width(across * columns), _height(count, across), title)
    between = [*[1] * columns, GAP]
    ratios = (between * across)[:-1]
    every = figure.subplots(rows, len(ratios), squeeze=False, width_ratios=ratios)
    for axes in every.flat:
        axes.set_axis_off()
    places = [place for place in range(len(ratios)) if (place + 1) % len(between)]
    grid = every[:, places].reshape(rows * across, columns)[:count]
    for axes, image, caption in zip(grid[:, 0], images, captions, strict=True):
        _show(axes, image)
        lines = [fit(line, CELL_CHARACTERS + 4) for line in caption.splitlines()]
        _head(axes, "\n".join(lines), SMALL - 1)
    for group in grid[:across]:
        for axes, heading in zip(group[1:], headings, strict=True):
            _head(axes, fit(heading, CELL_CHARACTERS), SMALL)
    return figure, grid


def _width(columns: int) -> float:
    return 1.2 + (CELL + 0.3) * columns


def _height(count: int, across: int) -> float:
    return 0.5 + (CELL + 0.4) * math.ceil(count / across)


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")


def _head(axes: Axes, text: str, size: int) -> None:
    # Where y is given, matplotlib looks for no ticks above the axes: that took two fifths of a sheet's time.
    axes.set_title(text, size=size, y=1, pad=3)


def _dimmed(image: np.ndarray) -> np.ndarray:
    """The grey `image`, neither black nor white anywhere, so that heat stands out from all of it."""
    grey = 40 + 0.6 * image.mean(axis=0, keepdims=True)
    return np.repeat(grey, 3, axis=0).astype(np.uint8)


def _remark(axes: Axes, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, size=SMALL, bbox=box)


def _beside(figure: Figure) -> dict[str, float]:
    """The layout of a colour bar some five inches high."""
    return {"shrink": min(1.0, 5 / figure.get_figheight()), "aspect": 20, "pad": 0.02}
