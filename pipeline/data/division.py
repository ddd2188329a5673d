"""Divides the rows of an image set, stratified by class: holds rows out, limits their number, and makes folds.

All results are the same on every machine and in every version of numpy.
"""

import numpy as np

# All splits use this seed, not the run's: runs are compared on the same validation and test images.
SPLIT_SEED = 0


def limit(
    rows: np.ndarray, labels: np.ndarray, count: int, num_classes: int, setting: str, seed: int = SPLIT_SEED
) -> np.ndarray:
    """`count` of `rows`, from every class and in proportion; all rows if `count` is 0 or larger than their number.

    `seed` decides which ones.
    """
    if not count or count >= len(rows):
        return rows
    if count < num_classes:
        raise ValueError(f"{setting}={count} is less than the {num_classes} classes: use 0 for all images, or more")
    return np.sort(_stratified(rows, labels, seed)[:count])


def hold_out(
    rows: np.ndarray, labels: np.ndarray, fraction: float, purpose: str, group_of: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The `rows` that stay, at least one of each class, and the held-out `fraction`, at least one row.

    group_of: (all,) int64, the group of each row of the set. Rows of one group stay together, so the fraction is met
    only as nearly as possible.
    """
    if group_of is not None:
        held = hold_out_groups(labels[rows], group_of[rows], fraction, SPLIT_SEED)
        if not held.any():
            raise ValueError(
                f"{purpose}: no group of images can be held out, because each class must keep an image to train on"
            )
        return rows[~held], rows[held]
    stay = len(rows) - max(1, round(fraction * len(rows)))
    if stay < len(np.unique(labels[rows])):
        raise ValueError(f"{purpose} takes so many of {len(rows)} train images that a class has none left to train on")
    order = _stratified(rows, labels)
    return np.sort(order[:stay]), np.sort(order[stay:])


def divide_into(
    folds: int, rows: np.ndarray, labels: np.ndarray, group_of: np.ndarray | None = None
) -> list[np.ndarray]:
    """`rows` as disjoint folds of nearly equal size, stratified, always the same. Rows of one group are in one fold.

    Raises ValueError if a class is in one fold alone: then nothing could be learned of it without that fold.
    """
    divided, rest = [], rows
    for number in range(folds, 1, -1):
        rest, held = hold_out(rest, labels, 1 / number, f"folds={folds}", group_of)
        divided.append(held)
    divided.append(rest)
    present = np.stack([np.isin(np.unique(labels[rows]), labels[fold]) for fold in divided]).sum(axis=0)
    if (present < 2).any():
        raise ValueError(f"folds={folds}: a class has too few images, or too few groups, to be in several folds")
    return divided


def _stratified(rows: np.ndarray, labels: np.ndarray, seed: int = SPLIT_SEED) -> np.ndarray:
    """`rows` in an order in which every prefix has the classes in proportion. It starts with one row of each class."""
    # Raw draws and a stable sort give the same order in every version of numpy. A generator's shuffle does not.
    shuffled = rows[np.argsort(np.random.PCG64(seed).random_raw(len(rows)), kind="stable")]
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, which, counts = np.unique(labels[by_class], return_index=True, return_inverse=True, return_counts=True)
    rank = np.arange(len(rows)) - first[which]  # 0, 1, 2, ... within the class
    place = np.where(rank == 0, 0, (rank + 0.5) / counts[which])
    return by_class[np.argsort(place, kind="stable")]


def hold_out_groups(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which of N images are held out, (N,) bool: whole groups, and of each class as nearly `fraction` as possible.

    labels, groups: (N,) int64. `seed` draws the order of the groups. A group is held out if that brings the counts of
    its classes nearer to their targets (squared distance, divided by the size of the class), and if each class keeps
    an image.
    """
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    by_group = np.split(labels[np.argsort(group, kind="stable")], np.cumsum(sizes)[:-1])
    counts = np.bincount(labels)
    wanted, held = fraction * counts, np.zeros(len(counts), dtype=np.int64)
    taken = np.zeros(len(first), dtype=bool)
    # Raw draws, and groups in the order of their first image, give the same result in every numpy and for any names.
    draws = np.random.PCG64(seed).random_raw(len(first))
    for number in np.argsort(first)[np.argsort(draws, kind="stable")]:
        classes, more = np.unique(by_group[number], return_counts=True)
        short = wanted[classes] - held[classes]
        nearer = (((short - more) ** 2 - short**2) / counts[classes]).sum() < 0
        if nearer and (held[classes] + more < counts[classes]).all():
            held[classes] += more
            taken[number] = True
    return taken[group]
