"""Spoils images as cameras, networks and weather do, at five severities: noise, blur, JPEG, light, rotation, occlusion.

After Hendrycks and Dietterich 2019 (arXiv:1903.12261). Lengths are shares of the side of the image, so that a severity
means the same at any size. docs/robustness.md says what differs from the paper.
"""

from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

SEVERITIES = 5
GREY = 128

Spoil = Callable[[Tensor, float, Generator], Tensor]


class Corruption(NamedTuple):
    """One way to spoil images: the function, its strength at each severity, and what the strength is."""

    spoil: Spoil
    strengths: tuple[float, ...]
    unit: str


def corrupt(images: Tensor, name: str, severity: int, generator: Generator) -> Tensor:
    """`images` (B, 3, H, W) uint8 on the CPU, spoiled; the same shape and type.

    name: a key of `CORRUPTIONS`. severity: 1 to 5. generator: draws noise, directions and places.
    """
    corruption = CORRUPTIONS[name]
    return corruption.spoil(images, corruption.strengths[severity - 1], generator)


def _noise(images: Tensor, deviation: float, generator: Generator) -> Tensor:
    added = torch.empty(images.shape).normal_(0, 255 * deviation, generator=generator)
    return (images + added).round().clamp(0, 255).to(torch.uint8)


def _blur(images: Tensor, share: float, generator: Generator) -> Tensor:
    sigma = share * images.shape[-1]
    reach = min(max(1, round(3 * sigma)), (images.shape[-1] - 1) // 2)
    return F.gaussian_blur(images, [2 * reach + 1, 2 * reach + 1], [sigma, sigma])


def _jpeg(images: Tensor, quality: float, generator: Generator) -> Tensor:
    return torch.from_numpy(np.stack([_through_a_file(image, int(quality)) for image in images]))


def _through_a_file(image: Tensor, quality: int) -> np.ndarray:
    """`image` (3, H, W), stored as a JPEG file and read again. Pillow does it, as in the paper's code."""
    file = BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


def _pixelate(images: Tensor, share: float, generator: Generator) -> Tensor:
    side = images.shape[-1]
    few = max(1, round(share * side))
    small = F.resize(images, [few, few], InterpolationMode.BILINEAR, antialias=True)
    return F.resize(small, [side, side], InterpolationMode.NEAREST)


def _light(images: Tensor, factor: float, generator: Generator) -> Tensor:
    return F.adjust_brightness(images, factor)


def _contrast(images: Tensor, factor: float, generator: Generator) -> Tensor:
    return F.adjust_contrast(images, factor)


def _rotation(images: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Half of the images, drawn, turn to the left, the others to the right. The corners become grey."""
    left, right = (
        F.rotate(images, sign * degrees, InterpolationMode.BILINEAR, fill=[GREY, GREY, GREY]) for sign in (1, -1)
    )
    is_left = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(is_left[:, None, None, None], left, right)


def _occlusion(images: Tensor, area: float, generator: Generator) -> Tensor:
    """A grey square of this share of the area covers each image, at a place of its own within the image."""
    side = images.shape[-1]
    covered = max(1, round(side * area**0.5))
    first = (torch.rand(len(images), 2, 1, generator=generator) * (side - covered + 1)).long()
    place = torch.arange(side)
    rows, columns = ((place >= first[:, axis]) & (place < first[:, axis] + covered) for axis in (0, 1))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(inside, GREY)


CORRUPTIONS = {
    "noise": Corruption(_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "standard deviation, of the range of values"),
    "blur": Corruption(_blur, tuple(px / 224 for px in (1, 2, 3, 4, 6)), "sigma, of the side"),
    "jpeg": Corruption(_jpeg, (25, 18, 15, 10, 7), "quality"),
    "pixelate": Corruption(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), "pixels kept, of the side"),
    "brightness": Corruption(_light, (1.2, 1.4, 1.6, 1.8, 2.0), "factor"),
    "darkness": Corruption(_light, (0.8, 0.65, 0.5, 0.35, 0.2), "factor"),
    "contrast": Corruption(_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), "factor"),
    "rotation": Corruption(_rotation, (5, 10, 15, 22, 30), "degrees"),
    "occlusion": Corruption(_occlusion, (0.05, 0.1, 0.2, 0.3, 0.4), "covered, of the area"),
}
