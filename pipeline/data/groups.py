"""Which groups of images are held out together, so that none of them has images on both sides."""

import numpy as np


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
