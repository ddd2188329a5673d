"""What the doctor examines, an image set as a whole, and what each of its checks says."""

from dataclasses import dataclass
from functools import cached_property
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
    """What one check says: a line for people, how many faults it names, and numbers as metrics."""

    line: str
    faults: int
    metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class Patient:
    """An image set as a whole: train first, then validation, then test."""

    params: DoctorParams
    splits: Splits
    names: tuple[str, ...]  # of the splits that are there
    images: Split
    parts: np.ndarray  # (N,) int, of which of them each image is
    looks: Looks
    device: torch.device

    @cached_property
    def twins(self) -> pd.DataFrame:
        """The duplicates, those that matter most first."""
        eligible = ~oddities.blank(self.looks)
        found = duplicates.find(self.looks, self.parts, eligible, self.params.near_similarity)
        return duplicates.in_order(found, self.parts, self.images.labels)

    @cached_property
    def classes(self) -> np.ndarray:
        """(N,) name of each image's class."""
        return np.array(self.splits.classes, dtype=object)[self.images.labels]

    def columns(self, column: str, positions: np.ndarray) -> pd.DataFrame:
        """Which images they are, in columns that begin with the name `column`."""
        return pd.DataFrame(
            {
                column: [self.images.names[position] for position in positions],
                f"{column}_split": [self.names[part] for part in self.parts[positions]],
                f"{column}_class": self.classes[positions],
            }
        )
