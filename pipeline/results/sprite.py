"""Puts many small images into one file, for pages that show a few of them at a time."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.results import plots

COLUMNS = 24
QUALITIES = (90, 70, 50, 30)  # the first one that keeps the file small enough is used
MAX_BYTES, SLIDER_BYTES = 5 * 2**18, 2**19  # per file, so that a page with several of them can be mailed

LARGEST_SIDE = 112  # px, of the slider's images
MAPS_PIXELS = 2**19  # all maps of the slider together; larger maps are thinned out
PER_CELL = 24  # at most, images of one true and one predicted class


def choose(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` representative rows: errors before hits, and within each pair of classes the most confident first.

    `predictions` has one row per image, with `true`, `predicted`, `correct` and `confidence`. The index is kept.
    """
    surest_first = predictions.sort_values("confidence", ascending=False, kind="stable")
    rank = surest_first.groupby(["true", "predicted"], sort=False).cumcount()
    ranked = surest_first.assign(rank=rank)[rank < PER_CELL]
    return ranked.sort_values(["correct", "rank"], kind="stable").head(most).drop(columns="rank")


def sprite(images: np.ndarray, most_side: int, most_bytes: int = MAX_BYTES) -> tuple[bytes, pd.DataFrame]:
    """(WebP file with all `images` (N, C, H, W) uint8, table of their positions).

    C is 3, or 4 with opacity; H equals W, and N is at least 1. Images are shrunk to at most `most_side` px, and the
    quality is lowered until the file has at most `most_bytes`. The table has one row per image: left, top, side (px).
    """
    side = min(images.shape[-1], most_side)
    columns = min(COLUMNS, len(images))
    mode = "RGB" if images.shape[1] == 3 else "RGBA"
    sheet = Image.new(mode, (columns * side, math.ceil(len(images) / columns) * side))
    places = [divmod(place, columns) for place in range(len(images))]
    for image, (row, column) in zip(images, places, strict=True):
        tile = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        sheet.paste(tile.resize((side, side), Image.Resampling.LANCZOS), (column * side, row * side))
    table = pd.DataFrame({"left": [c * side for _, c in places], "top": [r * side for r, _ in places], "side": side})
    return _encoded(sheet, QUALITIES, most_bytes), table


def _encoded(sheet: Image.Image, qualities: Sequence[int], most_bytes: int) -> bytes:
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=qualities[0], alpha_quality=qualities[0])
    if len(qualities) > 1 and file.tell() > most_bytes:
        return _encoded(sheet, qualities[1:], most_bytes)
    return file.getvalue()


def slider_files(
    images: np.ndarray, named: Sequence[Mapping[str, str]], maps: Mapping[int, np.ndarray]
) -> dict[str, tuple[bytes, pd.DataFrame]]:
    """{"images": ..., "maps": ...}: for each, a WebP file and a table with the position of each image in it.

    `images` (N, 3, S, S) uint8; `named` has the name and class of each; `maps` has (N, S, S) uint8 for each epoch, at
    least one. The table of maps has one row per map: number of the image from 0, epoch, whether the map is blank.
    """
    epochs, (count, side) = sorted(maps), (len(images), images.shape[-1])
    step = math.ceil(side / math.sqrt(MAPS_PIXELS / (len(epochs) * count)))
    small = np.concatenate([maps[epoch][:, ::step, ::step] for epoch in epochs])
    described = {
        "image": np.tile(np.arange(count), len(epochs)),
        "epoch": np.repeat(epochs, count),
        "blank": np.concatenate([(maps[epoch] == 0).all(axis=(1, 2)) for epoch in epochs]),
    }
    return {
        "images": _slider_file(images, pd.DataFrame(named)),
        "maps": _slider_file(plots.heat(small), pd.DataFrame(described)),
    }


def _slider_file(images: np.ndarray, described: pd.DataFrame) -> tuple[bytes, pd.DataFrame]:
    content, places = sprite(images, LARGEST_SIDE, SLIDER_BYTES)
    return content, pd.concat([described, places], axis=1)
