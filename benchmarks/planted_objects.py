"""Plants a digit at a known place on texture, and measures whether a map finds it.

The pointing game (Zhang et al. 2016, arXiv:1608.00507) asks whether a map is highest on the object. The energy is the
share of a map that lies on the object (Wang et al. 2020, arXiv:1910.01279).
"""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor
from torch.nn.functional import interpolate

NUM_CLASSES = 10


@dataclass(frozen=True)
class Planted:
    """Images for a model, their digits, and the places of the digits."""

    images: Tensor  # (N, 3, side, side) float32, about 0 on average
    labels: Tensor  # (N,) int64
    boxes: np.ndarray  # (N, side, side) bool: a quarter of the image


def plant(count: int, side: int, seed: int) -> Planted:
    """`count` images of `side` px (even). Each has a digit in a random colour, anywhere on a coloured texture.

    Use an even seed for training and an odd seed for testing: their images share no digit.
    """
    draw = Generator().manual_seed(seed)
    digits, labels = _digits(seed % 2)
    chosen = torch.randint(len(digits), (count,), generator=draw)
    half = side // 2
    places = torch.randint(half + 1, (count, 2), generator=draw)
    rows, columns = (_within(places[:, axis], half, side) for axis in (0, 1))
    boxes = rows[:, :, None] & columns[:, None, :]
    ink = torch.zeros(count, side, side)
    ink[boxes] = interpolate(digits[chosen, None], (half, half), mode="bilinear").clamp(0, 1).flatten()
    colours = 1 + torch.rand(count, 3, 1, 1, generator=draw)
    images = torch.lerp(_texture(count, side, draw), colours, ink[:, None])
    return Planted(images, labels[chosen], boxes.numpy())


def hits(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) in [0, 1]: the share of the highest pixels of each map (N, H, W) that lie on its object, usually 0 or 1.

    A map with the same value everywhere, such as a blank one, gets 0.
    """
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    on_object = (highest & boxes).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return np.where(highest.all(axis=(1, 2)), 0, on_object)


def energy(maps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) in [0, 1]: the share of each map (N, H, W) that lies on its object; 0 for a blank map."""
    total = maps.sum(axis=(1, 2))
    return np.where(total > 0, (maps * boxes).sum(axis=(1, 2)) / np.maximum(total, 1e-12), 0)


def _digits(half: int) -> tuple[Tensor, Tensor]:
    """Every second scanned digit of scikit-learn: images (N, 8, 8) float32 in [0, 1], and labels (N,) int64."""
    data = load_digits()
    images, labels = data.images[half::2] / 16, data.target[half::2]
    return torch.from_numpy(images).float(), torch.from_numpy(labels).long()


def _within(starts: Tensor, length: int, side: int) -> Tensor:
    """(N, side) bool: the `length` positions from each start on."""
    positions = torch.arange(side)
    return (positions >= starts[:, None]) & (positions < starts[:, None] + length)


def _texture(count: int, side: int, draw: Generator) -> Tensor:
    """Coarse and fine coloured noise, (N, 3, side, side). Most of it is darker than any digit."""
    layers = [torch.randn(count, 3, cells, cells, generator=draw) for cells in (side // 8, side // 2)]
    return sum((0.35 * interpolate(layer, (side, side), mode="bilinear") for layer in layers), torch.tensor(-0.5))
