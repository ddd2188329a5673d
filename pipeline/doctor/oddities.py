"""Finds images that may show nothing useful: blank, tiny, stretched out, blurred, or unlike all others."""

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from pipeline.doctor.looks import OCTAVES, Looks

BLANK_CONTRAST = 2.0  # levels of 255: lower contrast is only compression noise
# In placeholders, drawings and pages of text, two thirds or more of the pixels have one colour. In photos, at most half
# have one, even in front of a plain wall. If a third have one in the usual image of a set, as in scanned digits, the
# share says nothing.
PLAIN, USUALLY_PLAIN = 0.6, 0.3
ENLARGED = 2  # a file is tiny if it must be enlarged by more than this factor, and most files need not
NEIGHBOURS = 5  # an odd image stays odd if the set has four copies of it
LEAST_LEVELS, LEAST_LOGARITHM, LEAST_BLUR = 1.0, 0.05, 0.01  # smaller deviations do not count
PLAIN_IMAGE = "mostly of one colour (a placeholder or a text?)"  # reasons are joined by commas


def blank(looks: Looks) -> np.ndarray:
    """(N,) bool: images of one colour."""
    return looks.contrast < BLANK_CONTRAST


def find(looks: Looks, sizes: np.ndarray | None, image_size: int, deviations: float, max_aspect: float) -> pd.DataFrame:
    """A row per odd image, the oddest first: its position as `image`, `why`, and the numbers behind it.

    sizes: (N, 2) width and height of the files in px, 0 if unknown; None for a set without files.
    An image is blurred, or unlike all others, if its value is more than `deviations` robust standard deviations above
    the median of the set. So a property that all images share makes none of them odd. "Unlike" uses the logarithm of
    the distance to the fifth nearest image in colours and detail.
    """
    empty = blank(looks)
    blurred, unlike = np.zeros(len(empty)), np.zeros(len(empty))
    if (~empty).sum() > 2:
        blurred[~empty] = robust_deviations(looks.blur[~empty], LEAST_BLUR)
        unlike[~empty] = robust_deviations(_log_distance(looks.statistics[~empty]), LEAST_LOGARITHM)
    known = np.zeros((len(empty), 2), dtype=np.int64) if sizes is None else sizes
    shorter, longer = known.min(1), known.max(1)
    signs = {
        "blank": empty,
        PLAIN_IMAGE: ~empty & (looks.plain > PLAIN) & (np.median(looks.plain) < USUALLY_PLAIN),
        "tiny": (shorter > 0) & (shorter * ENLARGED < min(image_size, np.median(shorter))),
        "extreme aspect": longer > max_aspect * np.maximum(shorter, 1),
        "blurred": blurred > deviations,
        "unlike all others": unlike > deviations,
    }
    odd = np.flatnonzero(np.any([*signs.values()], axis=0))
    table = pd.DataFrame(
        {
            "image": odd,
            "why": [", ".join(why for why, is_so in signs.items() if is_so[position]) for position in odd],
            "width": known[odd, 0],
            "height": known[odd, 1],
            "contrast": looks.contrast[odd],
            "share_of_one_colour": looks.plain[odd],
            "blur_deviations": blurred[odd],
            "unlike_deviations": unlike[odd],
        }
    )
    rank = np.argmax([is_so[odd] for is_so in signs.values()], axis=0)
    return table.iloc[np.lexsort([-np.maximum(blurred, unlike)[odd], rank])].reset_index(drop=True)


def robust_deviations(values: np.ndarray, least: float | np.ndarray) -> np.ndarray:
    """How many deviations each of `values` (N, ...) is above the median. One is 1.4826 MAD, and at least `least`."""
    away = values - np.median(values, axis=0)
    return np.asarray(away / np.maximum(1.4826 * np.median(np.abs(away), axis=0), least))


def _log_distance(statistics: np.ndarray) -> np.ndarray:
    logarithms = OCTAVES + 1
    least = np.repeat([LEAST_LEVELS, LEAST_LOGARITHM], [statistics.shape[1] - logarithms, logarithms])
    scaled = robust_deviations(statistics, least)
    neighbours = min(NEIGHBOURS, len(scaled) - 1)
    distances, _ = NearestNeighbors(n_neighbors=neighbours).fit(scaled).kneighbors()
    # Distances below a tenth of a deviation do not count, because a set may contain copies.
    return np.asarray(np.log(np.maximum(distances[:, -1], 0.1)))
