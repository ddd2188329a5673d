"""Checks the logits of a network before its maps are computed."""

from torch import Tensor


class NotFinite(ValueError):
    """The logits or the maps of a network are not finite."""


def check(logits: Tensor, targets: Tensor) -> None:
    """Raises NotFinite if `logits` (B, C) are not finite, and ValueError for a target without a logit."""
    if not logits.isfinite().all():
        raise NotFinite("the model's logits are not finite")
    classes = logits.shape[1]
    if wrong := [target for target in targets.tolist() if not 0 <= target < classes]:
        raise ValueError(f"target {wrong[0]} is not a class of a model with {classes} logits")
