"""Maps of the same images after several epochs, small and in one file, for a page that shows one epoch at a time."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.results import plots, sprite

LARGEST_SIDE = 112  # px
MAPS_PIXELS = 2**19  # of all maps together, which are made smaller for it


def files(
    images: np.ndarray, named: Sequence[Mapping[str, str]], maps: Mapping[int, np.ndarray]
) -> dict[str, tuple[bytes, pd.DataFrame]]:
    """A WebP file, and a table of where each lies in it, of `images` and of `maps`, by those names.

    `images` (N, 3, S, S) uint8, N `named` each by its name and class; `maps` (N, S, S) uint8 by epoch, one at least.
    The table of the maps has a row per map: the image's place from 0, the epoch, whether it is blank.
    """
    epochs, (count, side) = sorted(maps), (len(images), images.shape[-1])
    step = math.ceil(side / math.sqrt(MAPS_PIXELS / (len(epochs) * count)))
    small = np.concatenate([maps[epoch][:, ::step, ::step] for epoch in epochs])
    told = {
        "image": np.tile(np.arange(count), len(epochs)),
        "epoch": np.repeat(epochs, count),
        "blank": np.concatenate([(maps[epoch] == 0).all(axis=(1, 2)) for epoch in epochs]),
    }
    return {"images": _file(images, pd.DataFrame(named)), "maps": _file(plots.heat(small), pd.DataFrame(told))}


def _file(images: np.ndarray, told: pd.DataFrame) -> tuple[bytes, pd.DataFrame]:
    content, places = sprite.sprite(images, LARGEST_SIDE, sprite.SLIDER_BYTES)
    return content, pd.concat([told, places], axis=1)
