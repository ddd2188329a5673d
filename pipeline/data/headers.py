"""How large images are before they are decoded, as their files' first bytes say."""

import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.decode import FORMATS
from pipeline.data.parallel import map_blocks
from pipeline.text import original

FILES_AT_ONCE = 256


def sizes(root: Path, names: Sequence[str], *, progress: bool = True) -> np.ndarray:
    """Width and height in px (N, 2) int64 of the images called `names`, as `shown` writes them, below `root`.

    0 and 0 for what cannot be read, such as a file that is gone since.
    """
    paths = [os.path.join(root, original(name)) for name in names]  # noqa: PTH118, as Path objects take longer
    blocks = map_blocks(_sizes, paths, FILES_AT_ONCE, title="reading headers", progress=progress)
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *blocks])


def _sizes(paths: Sequence[str]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that `decode` accepts
        return np.array([_size(path) for path in paths], dtype=np.int64)


def _size(path: str) -> tuple[int, int]:
    try:
        # Opening a pipe may wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return 0, 0
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except Exception:  # on broken files decoders raise anything
        return 0, 0
