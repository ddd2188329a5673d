"""Simulated answers of networks to test images that come in groups, with known accuracy, dependence and agreement.

A network is right on an image if a normal score is below a threshold. The score has a part that all images of a group
share, and a part that two networks share.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

AGREEMENT = 0.7  # share of the score's variance that two networks have in common


class Images(NamedTuple):
    """A kind of test set: the number of groups, the images of each, and how alike these are."""

    num_groups: int
    size: int  # images per group; on average if uneven
    alike: float  # share of the score's variance that images of a group have in common
    is_uneven: bool = False

    def __str__(self) -> str:
        if self.size == 1:
            return f"{self.num_groups} independent images"
        how = f"1 to many, {self.size} on average" if self.is_uneven else f"{self.size} each"
        return f"{self.num_groups} groups, {how}, {self.alike:g} alike"

    def groups(self, draw: np.random.Generator) -> np.ndarray:
        """The group of each image, (N,) int64."""
        sizes = draw.geometric(1 / self.size, self.num_groups) if self.is_uneven else self.size
        return np.repeat(np.arange(self.num_groups), sizes)

    def answers(self, draw: np.random.Generator, groups: np.ndarray, *accuracies: float) -> list[np.ndarray]:
        """For each network, whether it is right on each image, (N,) bool, with the given true accuracies."""

        def parts(number: int) -> Iterator[np.ndarray]:
            common = draw.normal(size=number)
            for _ in accuracies:
                yield np.sqrt(AGREEMENT) * common + np.sqrt(1 - AGREEMENT) * draw.normal(size=number)

        of_groups, of_images = parts(self.num_groups), parts(len(groups))
        scores = [
            np.sqrt(self.alike) * of_group[groups] + np.sqrt(1 - self.alike) * of_image
            for of_group, of_image in zip(of_groups, of_images, strict=True)
        ]
        return [score < norm.ppf(accuracy) for score, accuracy in zip(scores, accuracies, strict=True)]
