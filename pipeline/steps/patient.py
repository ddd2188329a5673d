"""The image set that the doctor examines, and the findings of its checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from pipeline.data import Split, Splits
from pipeline.doctor import duplicates, oddities
from pipeline.doctor.looks import Looks
from pipeline.params import DoctorParams

SHEET_IMAGES = 36


class Finding(NamedTuple):
    """The finding of one check: a line for people, the number of faults, and numbers as metrics.

    reasons: why an image is doubtful, by its position, the surest first. suggested: another label for some of them.
    """

    line: str
    faults: int
    metrics: dict[str, float]
    reasons: Mapping[int, str] = MappingProxyType({})
    suggested: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Patient:
    """A whole image set: train first, then validation, then test."""

    params: DoctorParams
    splits: Splits
    names: tuple[str, ...]  # of the splits that exist
    images: Split
    parts: np.ndarray  # (N,) int, the split of each image, as an index into `names`
    looks: Looks
    device: torch.device
    features: np.ndarray | None  # (N, D) float32, of a pretrained network; None without its weights

    @cached_property
    def twins(self) -> pd.DataFrame:
        """The duplicates, the most important ones first."""
        eligible = ~oddities.blank(self.looks)
        found = duplicates.find(self.looks, self.parts, eligible, self.params.near_similarity)
        return duplicates.in_order(found, self.parts, self.images.labels)

    @cached_property
    def classes(self) -> np.ndarray:
        """(N,) the class name of each image."""
        return np.array(self.splits.classes, dtype=object)[self.images.labels]

    def columns(self, column: str, positions: np.ndarray) -> pd.DataFrame:
        """A table that describes the images at `positions`, in columns whose names start with `column`."""
        return pd.DataFrame(
            {
                column: [self.images.names[position] for position in positions],
                f"{column}_split": [self.names[part] for part in self.parts[positions]],
                f"{column}_class": self.classes[positions],
            }
        )
