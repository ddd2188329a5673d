"""The events that the training loop emits."""

from dataclasses import dataclass
from typing import SupportsFloat


class Failure(Exception):
    """The request was valid, but there is no result. The message says why, in one line."""


@dataclass(frozen=True)
class StepEnd:
    """One update. `loss` and `num_correct` stay on the device until someone reads their values."""

    step: int  # number of updates before this one
    epoch: float  # passes over the data after this update, such as 1.5
    lr: float  # the rate of this update
    loss: SupportsFloat  # mean over the batch, before the update
    num_correct: SupportsFloat
    num_images: int
    seconds: float  # of the epoch so far


@dataclass(frozen=True)
class EpochEnd:
    """One pass over the train split. Training numbers are means over its updates, with augmentation."""

    epoch: int  # 1 after the first pass
    step: int  # number of updates so far
    lr: float  # of the epoch's last update
    train_loss: float
    train_accuracy: float
    valid_loss: float | None  # None without a validation split
    valid_accuracy: float | None
    seconds: float  # of training, without validation
    images_per_second: float
    # Saved states of earlier versions lack these two.
    valid_balanced_accuracy: float | None = None
    valid_macro_f1: float | None = None
