"""Measures how much detail image files hold. An enlarged photo holds less than its size suggests."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from pipeline.data import formats
from pipeline.data.decoder import to_rgb
from pipeline.text import original

MAX_SIDE = 512  # px on the shorter side; larger photos are scaled down to this first
MIN_SIDE = 32  # px on the shorter side; smaller photos are not used
FACTORS = (2, 3, 4, 6, 8)  # factors by which a photo is made smaller, to see whether it loses detail
# The detail lost at a size, divided by the detail lost at half that size. Photos from cameras have 0.6 or more. At the
# size from which a photo was enlarged, the ratio is 0.2 to 0.35, for any method of enlarging.
MOST_LOST = 0.4
# Ways to scale down and up again. One of them resembles the method that enlarged the photo.
WAYS = ((Resampling.LANCZOS, Resampling.BICUBIC), (Resampling.BOX, Resampling.NEAREST))


class Detail(NamedTuple):
    """How much detail a set of image files holds. The sizes are medians over the files."""

    detail: float  # px on the shorter side that would hold the same detail
    side: float  # px on the shorter side of the files
    looked_at: int  # number of files


def detail(root: Path, names: Sequence[str]) -> Detail | None:
    """The detail of the images `names` below `root`; None if no file can be used. Names are as `shown` writes them."""
    found = [each for name in names if (each := _losses(os.path.join(root, original(name))))]  # noqa: PTH118
    if not found:
        return None
    lost = np.median([shares for shares, _, _ in found], axis=0)
    times = max((each for each, share in zip(FACTORS, lost, strict=True) if share < MOST_LOST), default=1)
    scaled_side, side = (float(np.median([each[place] for each in found])) for place in (1, 2))
    return Detail(scaled_side / times if times > 1 else side, side, len(found))


def _losses(path: str) -> tuple[np.ndarray, int, int] | None:
    """The loss at each of `FACTORS`, as a share of the loss at twice that; the side measured; the side of the file."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            grey, side = formats.read(file, _grey)
    except (ValueError, OSError):
        return None
    if min(grey.size) < MIN_SIDE:
        return None
    lost = {times: _lost(grey, times) for times in {*FACTORS, *(2 * each for each in FACTORS)}}
    return np.array([lost[each] / max(lost[2 * each], 1e-3) for each in FACTORS]), min(grey.size), side


def _grey(image: Image.Image) -> tuple[Image.Image, int]:
    """`image` in grey levels as floats, at most `MAX_SIDE` px on the shorter side, and its own shorter side in px."""
    side = min(image.size)
    image.draft(None, (2 * MAX_SIDE, 2 * MAX_SIDE))
    image.load()
    grey = to_rgb(image).convert("L").convert("F")
    if side > MAX_SIDE:
        size = tuple(round(each * MAX_SIDE / min(grey.size)) for each in grey.size)
        grey = grey.resize((size[0], size[1]), Resampling.LANCZOS)
    return grey, side


def _lost(grey: Image.Image, times: int) -> float:
    """RMS difference, in levels, between `grey` and a copy made `times` smaller and then enlarged again."""
    pixels = np.asarray(grey)
    size = (max(1, round(grey.width / times)), max(1, round(grey.height / times)))
    again = (np.asarray(grey.resize(size, down).resize(grey.size, up)) for down, up in WAYS)
    return min(float(np.sqrt(np.square(each - pixels).mean())) for each in again)
