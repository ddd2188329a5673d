"""A decoded image set -> train, validation and test, the same for every run of the same settings."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from pipeline.data.cache import TEST, TRAIN, VALID, Decoded
from pipeline.data.rows import prefetch

TEST_FRACTION = 0.2  # of a set that comes without a test part
# Of every split, whatever the run's seed: runs are compared on the same validation and test images.
SPLIT_SEED = 0
DIGESTED_AT_A_TIME = 256  # images
MIN_STD = 1 / 255  # so that a constant channel can be divided by


@dataclass(frozen=True, eq=False)
class Split:
    """Some rows of an image set; the images stay where they are until taken."""

    source: np.ndarray = field(repr=False)  # (all, 3, H, W) uint8, usually a memory map
    rows: np.ndarray = field(repr=False)  # (N,) int64 into `source`
    labels: np.ndarray  # (N,) int64
    names: Sequence[str]  # N: path relative to the folder, or such as "train/123"
    margin: int = 0  # px on every side of what is stored that are not taken

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory that all images of the split would take, in bytes."""
        return len(self) * 3 * self.image_size**2 * self.source.itemsize

    @property
    def image_size(self) -> int:
        """Side of the images as they are taken, in px."""
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
        """The same rows, of which all that is stored is taken."""
        return replace(self, margin=0)

    def digest(self) -> str:
        """32 hex digits of names, labels and pixels: the same for the same images, whatever the rest of the set is."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for start in range(0, len(self), DIGESTED_AT_A_TIME):
            digest.update(self.take(np.arange(start, min(start + DIGESTED_AT_A_TIME, len(self)))).tobytes())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Report:
    """What loading left out: counts of what nobody would miss and of photos not read; (path, reason) of other files.

    And a line each on what it did not take as it lies there.
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
    indices: dict[str, np.ndarray]  # per split, ascending positions in the part of the source it was taken from


def divide(
    decoded: Decoded,
    name: str,
    *,
    flip: bool,
    report: Report,
    valid_fraction: float,
    limit_train: int,
    limit_test: int,
    margin: int = 0,
) -> Splits:
    """The splits of `decoded`: stratified, disjoint, rows ascending; no group in two of them.

    Without a test part, 20 % of train become it. Then train and test are cut down to `limit_train` and
    `limit_test` images (0 for all). Without a validation part, `valid_fraction` of train, in [0, 1), become
    it (0 for none). Raises ValueError if any of these leaves a class without a train image. `margin` is that of
    each split.
    """
    labels = decoded.labels
    train, valid, test = (np.flatnonzero(decoded.parts == part) for part in (TRAIN, VALID, TEST))
    if not len(test):
        train, test = hold_out(train, labels, TEST_FRACTION, "the test split", decoded.groups)
    train = limit(train, labels, limit_train, len(decoded.classes), "limit_train")
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


def limit(rows: np.ndarray, labels: np.ndarray, count: int, num_classes: int, setting: str) -> np.ndarray:
    """`count` of `rows`, classes in proportion and none left out; all if `count` is 0 or too many."""
    if not count or count >= len(rows):
        return rows
    if count < num_classes:
        raise ValueError(f"{setting}={count} is less than the {num_classes} classes: use 0 for all, or more")
    return np.sort(_stratified(rows, labels)[:count])


def hold_out(
    rows: np.ndarray, labels: np.ndarray, fraction: float, purpose: str, group_of: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `rows` that stay, at least one of each class, and the `fraction` held out, at least one.

    group_of: (all,) int64, where rows of one number go together; then the fraction is met as nearly as they allow.
    """
    if group_of is not None:
        held = held_out(labels[rows], group_of[rows], fraction, SPLIT_SEED)
        if not held.any():
            raise ValueError(f"{purpose}: no group of images can be held out and leave every class one to train on")
        return rows[~held], rows[held]
    stay = len(rows) - max(1, round(fraction * len(rows)))
    if stay < len(np.unique(labels[rows])):
        raise ValueError(f"{purpose} takes so many of {len(rows)} train images that a class has none left to train on")
    order = _stratified(rows, labels)
    return np.sort(order[:stay]), np.sort(order[stay:])


def _stratified(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`rows` in an order of which every prefix has the classes in proportion, the first rows one of each."""
    # Raw draws and a stable sort: unlike a generator's shuffle, the same in every version of numpy.
    shuffled = rows[np.argsort(np.random.PCG64(SPLIT_SEED).random_raw(len(rows)), kind="stable")]
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, which, counts = np.unique(labels[by_class], return_index=True, return_inverse=True, return_counts=True)
    rank = np.arange(len(rows)) - first[which]  # 0, 1, 2, ... within the class
    place = np.where(rank == 0, 0, (rank + 0.5) / counts[which])
    return by_class[np.argsort(place, kind="stable")]


def _split(decoded: Decoded, rows: np.ndarray, margin: int) -> Split:
    return Split(decoded.images, rows, decoded.labels[rows], [decoded.names[row] for row in rows], margin)


def _positions(decoded: Decoded, rows: np.ndarray) -> np.ndarray:
    """`rows`, which are of one part, counted from the first of that part."""
    return rows - np.flatnonzero(decoded.parts == decoded.parts[rows[0]])[0]


def _mean_and_std(decoded: Decoded, rows: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Per channel over the pixels of `rows`, in [0, 1] units; exact, as the sums are of integers."""
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


def held_out(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which of N images are held out, (N,) bool: whole groups, each class as near to `fraction` of it as they allow.

    labels, groups: (N,) int64. In an order drawn by `seed`, a group is taken where that brings the held-out counts of
    its classes nearer to what is wanted (squared distance, each class by its size), and leaves each class an image.
    """
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    by_group = np.split(labels[np.argsort(group, kind="stable")], np.cumsum(sizes)[:-1])
    counts = np.bincount(labels)
    wanted, held = fraction * counts, np.zeros(len(counts), dtype=np.int64)
    taken = np.zeros(len(first), dtype=bool)
    # Raw draws, and groups in the order of their first image: the same in every version of numpy, for any names.
    draws = np.random.PCG64(seed).random_raw(len(first))
    for number in np.argsort(first)[np.argsort(draws, kind="stable")]:
        classes, more = np.unique(by_group[number], return_counts=True)
        short = wanted[classes] - held[classes]
        nearer = (((short - more) ** 2 - short**2) / counts[classes]).sum() < 0
        if nearer and (held[classes] + more < counts[classes]).all():
            held[classes] += more
            taken[number] = True
    return taken[group]
