"""Where maps lie: on the border of the image, or in its middle. A class unlike the others hints at a shortcut.

A network may know a class by what is around the object, such as petals around a bee (Ribeiro et al. 2016,
arXiv:1602.04938; Geirhos et al. 2020, arXiv:2004.07780). Measures of faithfulness do not show that: such a
map is faithful.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.data.splits import evenly_spaced

MIDDLE = 0.5  # share of an image's area in its middle; the rest is the border
MOST_IMAGES, MOST_PER_CLASS, FEWEST_PER_CLASS = 256, 32, 5
FEWEST_CELLS = 4  # of a map on each side; the cells of a coarser map lie on the border and in the middle at once
SIGNIFICANT, LEAST_EXCESS = 0.01, 0.1  # a class stands out below this p-value, and by this share of its maps at least


def choose(predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Positions of the images to map: for each predicted class the same number at most, spread evenly.

    predicted: (N,) int64. Classes of too few images are left out.
    """
    most = min(MOST_PER_CLASS, MOST_IMAGES // num_classes)
    found = [np.flatnonzero(predicted == each) for each in range(num_classes)]
    chosen = [each[evenly_spaced(len(each), most)] for each in found]
    return np.concatenate([each for each in chosen if len(each) >= FEWEST_PER_CLASS] or [np.empty(0, np.int64)])


def border_shares(maps: np.ndarray) -> np.ndarray:
    """(B,) in [0, 1]: the share of each map (B, H, W) on the border of its image. NaN for a blank map.

    The border is what is left of the image around its middle, which has half of the area. An even map has 0.5.
    """
    height, width = (_middle(size) for size in maps.shape[1:])
    inside = np.einsum("bhw,h,w->b", maps, height, width)
    total = maps.sum(axis=(1, 2))
    return np.where(total > 0, 1 - inside / np.where(total > 0, total, 1), np.nan)


def _middle(size: int) -> np.ndarray:
    """(size,) in [0, 1]: how much of each pixel of an edge belongs to the middle."""
    edge = size * (1 - MIDDLE**0.5) / 2
    starts = np.arange(size)
    return np.clip(np.minimum(starts + 1, size - edge) - np.maximum(starts, edge), 0, 1)


def by_class(shares: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """A row per class with enough maps, the largest share first, with its standard error and the other classes' share.

    A class `stands_out` if its share is larger than the other classes' by at least `LEAST_EXCESS`, and by more than
    chance: Welch's t-test, one-sided, with the p-value times the number of classes. shares: (N,), NaN for blank maps;
    predicted: (N,) int64.
    """
    kept = {
        name: own
        for number, name in enumerate(classes)
        if len(own := shares[(predicted == number) & ~np.isnan(shares)]) >= FEWEST_PER_CLASS
    }
    rows = []
    for name, own in kept.items():
        others = [each for other, each in kept.items() if other != name]
        rest = float(np.mean([each.mean() for each in others])) if others else np.nan
        is_more = bool(others) and _p_value(own, np.concatenate(others)) * len(kept) < SIGNIFICANT
        stands_out = is_more and own.mean() - rest >= LEAST_EXCESS
        rows.append((name, len(own), own.mean(), own.std(ddof=1) / np.sqrt(len(own)), rest, stands_out))
    columns = ["class", "images", "border_share", "standard_error", "other_classes", "stands_out"]
    return pd.DataFrame(rows, columns=columns).sort_values("border_share", ascending=False, ignore_index=True)


def _p_value(own: np.ndarray, others: np.ndarray) -> float:
    if np.ptp(own) == np.ptp(others) == 0:  # no spread, so no test
        return float(own[0] <= others[0])
    return float(stats.ttest_ind(own, others, equal_var=False, alternative="greater").pvalue)


def finding(table: pd.DataFrame) -> str:
    """The classes of `by_class` that stand out, in words with a caveat, to end a sentence; empty if none does."""
    sentences = [
        f"{row['border_share']:.0%} of what speaks for {row['class']} lies on the border of the image, "
        f"{row['other_classes']:.0%} for the other classes"
        for row in table[table["stands_out"]].to_dict("records")
    ]
    caveat = "the network may know it by its background, or the object lies there: look at the maps"
    return f"; {'; '.join(sentences)} ({caveat})" if sentences else ""
