"""Measures a network on the validation images, and compares epochs by the results."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.training.events import EpochEnd

FEW = 100  # with fewer validation images, the best of several epochs is best by chance


def measure(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss (nats), accuracy, balanced accuracy and macro F1 of logits (N, C) for labels (N,) int64.

    The last two are means over the classes that occur in `labels`: of the recall, and of F1, which is 0 for a class
    that is never predicted.
    """
    return numbers(counts(logits, labels))


def counts(logits: Tensor, labels: Tensor) -> Tensor:
    """The sums from which `numbers` follow, (1 + 3C,) float64. The sums of several parts of the images can be added."""
    predicted, num_classes = logits.argmax(1), logits.shape[1]
    loss = F.cross_entropy(logits.double(), labels, reduction="sum")
    found = [torch.bincount(each, minlength=num_classes) for each in (labels[predicted == labels], labels, predicted)]
    return torch.cat([loss[None], *found]).double()


def numbers(sums: Tensor) -> dict[str, float]:
    """The numbers of `measure`, from the sums of all images."""
    right, true, answered = sums[1:].reshape(3, -1)
    number, occurring = true.sum(), true > 0
    return {
        "loss": (sums[0] / number).item(),
        "accuracy": (right.sum() / number).item(),
        "balanced_accuracy": (right / true)[occurring].mean().item(),
        "macro_f1": (2 * right / (true + answered))[occurring].mean().item(),
    }


def is_clearly_worse(epoch: EpochEnd, than: EpochEnd, num_images: int) -> bool:
    """Whether the accuracy of `epoch` on `num_images` validation images is below the other's by two standard errors.

    An epoch whose loss is not a number is clearly worse than any epoch with one.
    """
    if _is_broken(epoch) or _is_broken(than):
        return not _is_broken(than)
    now, before = epoch.valid_accuracy, than.valid_accuracy
    if now is None or before is None:
        return False
    return before - now > 2 * math.sqrt((now * (1 - now) + before * (1 - before)) / num_images)


def merit(epoch: EpochEnd, select_by: str) -> tuple[float, ...]:
    """A sort key, larger for a better epoch: its `select_by`, then its loss; without validation, its number.

    An epoch whose loss is not a number comes last.
    """
    value = getattr(epoch, f"valid_{select_by}")
    if value is None or epoch.valid_loss is None:
        return (epoch.epoch,)
    if _is_broken(epoch):
        return (-math.inf,)
    return (-value if select_by == "loss" else value, -epoch.valid_loss)


def _is_broken(epoch: EpochEnd) -> bool:
    # Logits that are not numbers still have an accuracy: they count as answers for the first class.
    return epoch.valid_loss is not None and math.isnan(epoch.valid_loss)
