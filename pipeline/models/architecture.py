"""Describes an architecture: how to build it, and where its activation maps are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


class CamTarget(NamedTuple):
    """The layer whose output a class activation map weighs, and a conversion of other outputs to (B, C, h, w)."""

    layer: nn.Module
    to_grid: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Architecture:
    """A network from images (B, 3, image_size, image_size) to logits (B, num_classes)."""

    build: Callable[..., nn.Module]
    options: tuple[str, ...]
    cam_target: Callable[[Any], CamTarget]
    fit_to: Callable[[Any, Tensor], None] | None = None  # sets the weights that depend on images, not on training
