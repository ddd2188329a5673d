"""Contact sheets: images with predictions, maps or attention of the model."""

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
CELL = 1.6  # side of an image (inches)
SCREEN, GAP = 1.5, 0.2  # width / height of a screen; gap between images in a row (cells)
CELL_CHARACTERS = 26  # that fit beside each other in a cell
WATCHED_SIDE, WATCHED_GAP = 96, 2  # a watched image has at most this side, and at least half of it; gap (px)


def _heat() -> ListedColormap:
    """Colours from black to yellow. Low values are transparent, so that the image is visible where relevance is low."""
    levels = np.linspace(0, 1, 256)
    colours = mpl.colormaps["inferno"](0.25 + 0.7 * levels)
    colours[:, 3] = 0.85 * np.sqrt(levels)
    return ListedColormap(colours, "heat")


HEAT = _heat()


def heat(maps: np.ndarray) -> np.ndarray:
    """Colours (N, 4, H, W) uint8 of `maps` (N, H, W) in [0, 1], to lay over an image."""
    colours: np.ndarray = HEAT(maps, bytes=True)
    return colours.transpose(0, 3, 1, 2)


def laid_over(image: np.ndarray, of_image: np.ndarray) -> np.ndarray:
    """One picture (3, H, W) uint8: `image` (3, H, W) uint8 in grey, below the colours of its map (H, W) in [0, 1]."""
    colours = heat(of_image[None])[0].astype(np.float32)
    opacity = colours[3:] / 255
    return (opacity * colours[:3] + (1 - opacity) * _dimmed(image)).astype(np.uint8)


def gallery(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """A sheet of `images` (N, 3, H, W) uint8, each with its caption; without images, it says that none are wrong.

    A cell has the shape of its image.
    """
    wide = images.shape[3] / images.shape[2]
    columns = math.ceil(math.sqrt(len(images) / wide))
    columns = min(max(columns, math.ceil(MIN_COLUMNS / wide)), math.ceil(MAX_COLUMNS / wide))
    rows = math.ceil(len(images) / columns)
    figure = sheet(CELL * wide * columns, 0.6 + (CELL + 0.25) * rows, title)
    if not rows:
        figure.text(0.5, 0.3, "no misclassified images", ha="center", va="center", size=SMALL)
        return figure
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, caption in zip(grid.flat, images, captions, strict=False):
        show(axes, image)
        _head(axes, fit(caption, int(CELL_CHARACTERS * wide), lines=2), SMALL - 1)
    return figure


def explanations(
    images: np.ndarray, panels: Sequence[tuple[str, np.ndarray]], captions: Sequence[str], title: str
) -> Figure:
    """Each image (N, 3, H, W) uint8, and beside it one copy per panel with the panel's map (N, H, W) in [0, 1] over it.

    A map of zeros has a remark instead. N is at least 1.
    """
    figure, grid = _groups(images, captions, title, [heading for heading, _ in panels])
    scale = Normalize(0, 1)
    for row, image in enumerate(images):
        for axes, (_, maps) in zip(grid[row, 1:], panels, strict=True):
            show(axes, _dimmed(image))
            if maps[row].any():
                axes.imshow(maps[row], cmap=HEAT, norm=scale, interpolation="nearest")
            else:
                _remark(axes, "nothing\nstands out")
    colour_bar(figure, ScalarMappable(scale, HEAT), grid, "relevance within the image", **_beside(figure))
    return figure


def attention_matrices(images: np.ndarray, matrices: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Each image (N, 3, H, W) uint8 and beside it its K attention matrices, `matrices` (N, K, M, M) >= 0.

    All matrices have the same colour scale. N is at least 1.
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
    """One picture (H', W', 3) uint8: `images` (N, 3, H, W) uint8 in a row, each with its map (N, H, W) in [0, 1] below.

    Small images are enlarged: each pixel becomes a block of pixels.
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
    """(figure, axes (N, 1 + M)): the image with its caption, and beside it an empty cell per heading.

    The number of images per row is chosen so that the sheet has the shape of a screen.
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
        show(axes, image)
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


def show(axes: Axes, image: np.ndarray) -> None:
    """Draws `image` (3, H, W) uint8, with a visible square for each pixel."""
    axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")


def _head(axes: Axes, text: str, size: int) -> None:
    # Where y is given, matplotlib looks for no ticks above the axes: that took two fifths of a sheet's time.
    axes.set_title(text, size=size, y=1, pad=3)


def _dimmed(image: np.ndarray) -> np.ndarray:
    """`image` in grey, without black and white, so that heat colours are visible everywhere."""
    grey = 40 + 0.6 * image.mean(axis=0, keepdims=True)
    return np.repeat(grey, 3, axis=0).astype(np.uint8)


def _remark(axes: Axes, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, size=SMALL, bbox=box)


def _beside(figure: Figure) -> dict[str, float]:
    """The layout of a colour bar about five inches high."""
    return {"shrink": min(1.0, 5 / figure.get_figheight()), "aspect": 20, "pad": 0.02}
