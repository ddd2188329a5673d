"""Divides a decoded image set into train, validation and test, in the same way for all runs with the same settings."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from pipeline.data.cache import TEST, TRAIN, VALID, Decoded
from pipeline.data.division import SPLIT_SEED, divide_into, hold_out, limit
from pipeline.data.rows import prefetch

TEST_FRACTION = 0.2  # of train, if a set has no test part
DIGESTED_AT_A_TIME = 256  # images
MIN_STD = 1 / 255  # avoids a division by 0 for a constant channel


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of an image set. Images are read only when they are taken."""

    source: np.ndarray = field(repr=False)  # (all, 3, H, W) uint8, usually a memory map
    rows: np.ndarray = field(repr=False)  # (N,) int64 into `source`
    labels: np.ndarray  # (N,) int64
    names: Sequence[str]  # N: path relative to the folder, or for example "train/123"
    margin: int = 0  # px that `take` cuts off on every side of the stored images

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory that all images of the split need, in bytes."""
        return len(self) * 3 * self.image_size**2 * self.source.itemsize

    @property
    def image_size(self) -> int:
        """Side of the images that `take` returns, in px."""
        return self.source.shape[-1] - 2 * self.margin

    def take(self, positions: np.ndarray) -> np.ndarray:
        """A copy of the images at `positions` in the split: (B, 3, H, W) uint8."""
        rows = self.rows[positions]
        prefetch(self.source, rows)
        if not self.margin:
            return self.source[rows]
        centre = slice(self.margin, -self.margin)
        return self.source[rows, :, centre, centre]

    def with_margin(self) -> Self:
        """The same rows, but `take` returns the whole stored images."""
        return replace(self, margin=0)

    def spread(self, most: int) -> Self:
        """At most `most` of the images, evenly spaced."""
        some = evenly_spaced(len(self), most)
        names = [self.names[position] for position in some]
        return replace(self, rows=self.rows[some], labels=self.labels[some], names=names)

    def digest(self) -> str:
        """A hash of names, labels and pixels, 32 hex digits. It does not depend on the rest of the set."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for start in range(0, len(self), DIGESTED_AT_A_TIME):
            digest.update(self.take(np.arange(start, min(start + DIGESTED_AT_A_TIME, len(self)))).tobytes())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Report:
    """The files that loading left out.

    skipped, unread: counts of unimportant files, and of photos in unsupported formats. left_out: (path, reason) of
    other files. remarks: a line on each thing that was changed or ignored.
    """

    skipped: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Splits:
    """An image set divided for training."""

    name: str
    classes: tuple[str, ...]
    train: Split
    valid: Split | None
    test: Split
    digest: str  # 32 hex digits of images, labels, size and the rows of each split
    mean: tuple[float, float, float]  # per channel of the train split, in [0, 1] units
    std: tuple[float, float, float]
    flip: bool  # whether a mirrored image still belongs to its class
    report: Report
    indices: dict[str, np.ndarray]  # per split, ascending positions within the part that it comes from
    groups: Mapping[str, str] = field(default_factory=dict)  # the group of each image that has one, by name
    # Further columns of the table of labels: by column, the value of each image that has one, by name.
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def groups_of(self, split: Split) -> list[str]:
        """The group of each image of `split`; empty for an image that is a group of its own."""
        return [self.groups.get(name, "") for name in split.names]


def evenly_spaced(number: int, most: int) -> np.ndarray:
    """At most `most` positions below `number`, evenly spaced, int64."""
    return np.linspace(0, number - 1, min(most, number)).astype(np.int64)


def divide(
    decoded: Decoded,
    name: str,
    *,
    flip: bool,
    report: Report,
    valid_fraction: float,
    limit_train: int,
    limit_test: int,
    limit_seed: int = SPLIT_SEED,
    folds: int = 0,
    fold: int = 0,
    margin: int = 0,
) -> Splits:
    """The splits of `decoded`: stratified and disjoint, with ascending rows. A group stays in one split.

    If there is no test part, 20 % of train become the test split. Then train and test are cut down to `limit_train` and
    `limit_test` images (0 for all); `limit_seed` chooses the train images. If there is no validation part,
    `valid_fraction` of train, in [0, 1), becomes the validation split (0 for none). With `folds`, the train and
    validation parts, cut down to `limit_train` images, are divided into folds, and number `fold`, from 1, is the test
    split. Each split gets the `margin`. Raises ValueError if a class is left without a train image.
    """
    labels = decoded.labels
    if folds:
        decoded = replace(decoded, parts=np.where(decoded.parts == VALID, TRAIN, decoded.parts))
    train, valid, test = (np.flatnonzero(decoded.parts == part) for part in (TRAIN, VALID, TEST))
    if not folds and not len(test):
        train, test = hold_out(train, labels, TEST_FRACTION, "the test split", decoded.groups)
    train = limit(train, labels, limit_train, len(decoded.classes), "limit_train", limit_seed)
    if folds:
        test = divide_into(folds, train, labels, decoded.groups)[fold - 1]
        train = np.setdiff1d(train, test)
    test = limit(test, labels, limit_test, len(decoded.classes), "limit_test")
    if valid_fraction and not len(valid):
        purpose = f"valid_fraction={valid_fraction:g}"
        train, valid = hold_out(train, labels, valid_fraction, purpose, decoded.groups)
    rows = {"train": train, "valid": valid, "test": test}
    mean, std = _mean_and_std(decoded, train)
    return Splits(
        name=name,
        classes=tuple(decoded.classes),
        train=_split(decoded, train, margin),
        valid=_split(decoded, valid, margin) if len(valid) else None,
        test=_split(decoded, test, margin),
        digest=_digest(decoded, rows, margin),
        mean=mean,
        std=std,
        flip=flip,
        report=report,
        indices={split: _positions(decoded, taken) for split, taken in rows.items() if len(taken)},
    )


def _split(decoded: Decoded, rows: np.ndarray, margin: int) -> Split:
    return Split(decoded.images, rows, decoded.labels[rows], [decoded.names[row] for row in rows], margin)


def _positions(decoded: Decoded, rows: np.ndarray) -> np.ndarray:
    """`rows` of one part, counted from the first row of that part."""
    return rows - np.flatnonzero(decoded.parts == decoded.parts[rows[0]])[0]


def _mean_and_std(decoded: Decoded, rows: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of the pixels of `rows` per channel, in [0, 1] units. Exact: the sums are integers."""
    pixels = len(rows) * int(np.prod(decoded.images.shape[2:]))
    total, squares = decoded.moments[rows].sum(axis=0).astype(np.float64)
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    red, green, blue = (mean / 255).tolist()
    spread = np.maximum(std / 255, MIN_STD).tolist()
    return (red, green, blue), (spread[0], spread[1], spread[2])


def _digest(decoded: Decoded, rows: Mapping[str, np.ndarray], margin: int) -> str:
    digest = hashlib.sha256(f"{decoded.digest} {decoded.images.shape[1:]}".encode())
    if margin:
        digest.update(f" margin {margin} ".encode())
    for name, taken in rows.items():
        digest.update(f" {name} ".encode() + taken.astype("<i8").tobytes())
    return digest.hexdigest()[:32]
