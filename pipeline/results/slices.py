"""Computes the accuracy of parts of the test images, such as those of one camera. Their number widens the intervals."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, count, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results.metrics import share_interval

MOST_VALUES = 12  # most values of a column; with more, each has too few images. More numbers than this become thirds.
MOST_PAIRS = 24  # most pairs of values of two columns
LEAST_IMAGES = 10  # fewest images of a slice
DIGITS = 3  # significant ones in the ends of a third, or more if two ends would look the same
LEVEL = 0.05  # probability that any interval of the table misses the truth


class _Slice(NamedTuple):
    column: str
    value: str
    rows: np.ndarray  # (N,) bool


def thirds(values: np.ndarray) -> list[str]:
    """For each of `values` (N,), the range of its third, such as `0.2 to 0.4`; empty for a value that is not finite.

    All are empty if the values do not make at least two ranges.
    """
    known = np.isfinite(values)
    if not known.any():
        return [""] * len(values)
    edges = np.unique(np.quantile(values[known], [0, 1 / 3, 2 / 3, 1]))
    if len(edges) < 3:
        return [""] * len(values)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [f"{low} to {high}" for low, high in pairwise(_distinct_texts(edges))]
    return [names[place] if is_known else "" for place, is_known in zip(places, known, strict=True)]


def _distinct_texts(numbers: np.ndarray) -> list[str]:
    """`numbers` (K,), which all differ, as texts that all differ, with few digits and without exponents."""
    for digits in count(DIGITS):
        texts = [np.format_float_positional(each, digits, unique=False, fractional=False, trim="-") for each in numbers]
        if len({*texts}) == len(texts):
            return texts
    raise AssertionError


def usable(columns: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The columns that make slices, and the names of those that have too many values.

    Many different numbers become thirds. A column with one value makes no slices.
    """
    found, too_many = {}, []
    for name, values in columns.items():
        texts = list(values)
        if len({*texts} - {""}) > MOST_VALUES:
            numbers = pd.to_numeric(pd.Series(texts), errors="coerce").to_numpy(dtype=np.float64)
            if np.isnan(numbers[[text != "" for text in texts]]).any():
                too_many.append(name)
                continue
            texts = thirds(numbers)
        if len({*texts} - {""}) > 1:
            found[name] = texts
    return found, too_many


def table(correct: np.ndarray, columns: Mapping[str, Sequence[str]], groups: np.ndarray | None = None) -> pd.DataFrame:
    """One row per slice, the worst first: column, value, images, accuracy, low, high, below.

    correct: (N,) bool. columns: N values each, as `usable` returns them; an empty value is in no slice. A slice is a
    value, or a pair of values of two columns if there are few pairs. `low` and `high` hold the truths of all slices
    together with a probability of 95 % (Bonferroni): Wilson intervals, or over `groups` (N,) int64. `below`: the
    interval lies below the accuracy of all images.
    """
    found = list(_slices(columns))
    level = LEVEL / max(1, len(found))
    rows = []
    for column, value, inside in found:
        right = correct[inside]
        low, high = share_interval(right, None if groups is None else groups[inside], 1 - level)
        rows.append((column, value, len(right), right.mean(), low, high, bool(high < correct.mean())))
    names = ["column", "value", "images", "accuracy", "low", "high", "below"]
    return pd.DataFrame(rows, columns=names).sort_values("accuracy", kind="stable", ignore_index=True)


def _slices(columns: Mapping[str, Sequence[str]]) -> Iterator[_Slice]:
    """The slices with enough images."""
    values = {name: np.array(texts, dtype=object) for name, texts in columns.items()}
    known = {name: sorted({*texts} - {""}) for name, texts in columns.items()}
    singles = [_Slice(name, value, values[name] == value) for name in columns for value in known[name]]
    pairs = [
        _Slice(f"{one.column} and {other.column}", f"{one.value} and {other.value}", one.rows & other.rows)
        for one, other in combinations(singles, 2)
        if one.column != other.column
    ]
    candidates = [*singles, *(pairs if len(pairs) <= MOST_PAIRS else [])]
    yield from (each for each in candidates if each.rows.sum() >= LEAST_IMAGES)
