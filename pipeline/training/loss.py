"""The loss of training: cross-entropy with label smoothing and class weights."""

from collections.abc import Callable

import numpy as np
import torch.nn.functional as F
from torch import Tensor

BETA = 0.999  # of the effective number: beyond some thousand images, more images change the weight of a class little


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    """The mean loss of `logits` (B, C) float32 against labels (B,) or probabilities (B, C)."""
    if class_weights is None or not label_smoothing:
        return F.cross_entropy(logits, targets, class_weights, label_smoothing=label_smoothing)
    # Torch would also apply the class weights to the share that smoothing gives to each class. With 100 images of one
    # class to 1 of the other, the best answer for a clear image of the common class would then be the rare class.
    evenly = -logits.log_softmax(1).mean(1)
    if targets.ndim == 1:
        weights = class_weights[targets]
        share = (weights * evenly).sum() / weights.sum()
    else:
        share = (targets @ class_weights * evenly).mean()
    return (1 - label_smoothing) * F.cross_entropy(logits, targets, class_weights) + label_smoothing * share


def class_weights(labels: np.ndarray, num_classes: int, rule: str) -> np.ndarray:
    """Class weights (C,) float32 by `rule`, one of `RULES`, for train images with `labels` (N,) int64.

    Each class needs at least one image. The mean of the weights over the images is 1, so the scale of the loss stays
    the same, and a learning rate keeps its meaning.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = RULES[rule](counts)
    return (weights * len(labels) / (weights @ counts)).astype(np.float32)


def balanced(counts: np.ndarray) -> np.ndarray:
    """The inverse of each class's number of images, `counts` (C,)."""
    return 1 / counts


def effective(counts: np.ndarray) -> np.ndarray:
    """The inverse of each class's effective number of images (Cui et al. 2019, arXiv:1901.05555)."""
    return (1 - BETA) / (1 - BETA**counts)


RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"balanced": balanced, "effective": effective}
