"""How much detail image files hold, which is less than their size where they were enlarged."""

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

MOST_PIXELS = 512  # on the shorter side, of what is looked at: a larger photo is first made as small
LEAST_PIXELS = 32
TIMES = (2, 3, 4, 6, 8)  # as small as which a photo may be without losing anything
# What is lost at a size, as a share of what is lost at half of it: 0.6 and more of photos as cameras and networks have
# them, 0.2 to 0.35 where that size is what they were enlarged from, whatever by.
MOST_LOST = 0.4
# Ways to make smaller, and to enlarge: one of them is like the one by which the photo was enlarged.
WAYS = ((Resampling.LANCZOS, Resampling.BICUBIC), (Resampling.BOX, Resampling.NEAREST))


class Detail(NamedTuple):
    """In px, on the shorter side, of the file in the middle of all: what it holds, and how large it is."""

    detail: float
    side: float
    looked_at: int


def detail(root: Path, names: Sequence[str]) -> Detail | None:
    """The detail of the images called `names`, as `shown` writes them, below `root`; None if none says anything."""
    found = [each for name in names if (each := _of_file(os.path.join(root, original(name))))]  # noqa: PTH118
    if not found:
        return None
    lost = np.median([shares for shares, _, _ in found], axis=0)
    times = max((each for each, share in zip(TIMES, lost, strict=True) if share < MOST_LOST), default=1)
    looked_at, sides = (float(np.median([each[place] for each in found])) for place in (1, 2))
    return Detail(looked_at / times if times > 1 else sides, sides, len(found))


def _of_file(path: str) -> tuple[np.ndarray, int, int] | None:
    """What is lost at each of `TIMES` as a share of what is lost at twice that, and the sides looked at and there."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            grey, side = formats.read(file, _grey)
    except (ValueError, OSError):
        return None
    if min(grey.size) < LEAST_PIXELS:
        return None
    lost = {times: _lost(grey, times) for times in {*TIMES, *(2 * each for each in TIMES)}}
    return np.array([lost[each] / max(lost[2 * each], 1e-3) for each in TIMES]), min(grey.size), side


def _grey(image: Image.Image) -> tuple[Image.Image, int]:
    side = min(image.size)
    image.draft(None, (2 * MOST_PIXELS, 2 * MOST_PIXELS))
    image.load()
    grey = to_rgb(image).convert("L").convert("F")
    if side > MOST_PIXELS:
        size = tuple(round(each * MOST_PIXELS / min(grey.size)) for each in grey.size)
        grey = grey.resize((size[0], size[1]), Resampling.LANCZOS)
    return grey, side


def _lost(grey: Image.Image, times: int) -> float:
    """Levels, root mean square, by which `grey` differs from itself made so many times smaller and enlarged again."""
    pixels = np.asarray(grey)
    size = (max(1, round(grey.width / times)), max(1, round(grey.height / times)))
    again = (np.asarray(grey.resize(size, down).resize(grey.size, up)) for down, up in WAYS)
    return min(float(np.sqrt(np.square(each - pixels).mean())) for each in again)
