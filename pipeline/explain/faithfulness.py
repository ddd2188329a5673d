"""Measures attribution maps by removing the pixels they point at and asking the model again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, interpolate

from pipeline.data.batches import batch_size
from pipeline.models import untouched

FRACTIONS = (0.2, 0.4, 0.6, 0.8)  # shares of the pixels that are removed
NOISE = 0.01  # standard deviation of the imputation's noise, in normalised pixels, as in ROAD
MAX_ITERATIONS = 100  # enough for images of 64 px; in the wider holes of larger images, the middle stays near the mean


@dataclass(frozen=True)
class Faithfulness:
    """Confidence in the target classes as pixels are removed: the share removed (F,), the confidences (B, F).

    All are in [0, 1]. The first share is 0, for the unchanged images.
    """

    fractions: np.ndarray
    most_relevant_first: np.ndarray
    least_relevant_first: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(B,) in [-1, 1]: confidence left without the least relevant pixels minus that without the most.

        The mean over the fractions. Higher is more faithful. Pixels in random order score 0 on average.
        """
        return (self.least_relevant_first - self.most_relevant_first)[:, 1:].mean(axis=1)


def measure(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: np.ndarray,
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
) -> Faithfulness:
    """How faithful `maps` (B, H, W) of `images` (B, 3, H, W), as the model takes them, are for `targets` (B,) int64.

    Remove And Debias (Rong et al. 2022, arXiv:2202.00449): removed pixels are filled in from the pixels around them, so
    that the model sees neither black holes nor their outline. Exactly the given fractions, in (0, 1), of the pixels are
    removed. ReLU makes many pixels equal; these go in random order. `seed` sets order and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    ties = np.random.default_rng(seed)
    at_once = batch_size(images.shape[-1])
    with untouched(model), torch.inference_mode():
        batches = [
            _confidences(model, images[batch], targets[batch], ranks(maps[batch], ties), fractions, generator)
            for batch in (slice(start, start + at_once) for start in range(0, len(images), at_once))
        ]
    most, least = (np.concatenate(curves) for curves in zip(*batches, strict=True))
    return Faithfulness(np.array([0.0, *fractions]), most, least)


def _confidences(
    model: nn.Module, images: Tensor, targets: Tensor, order: Tensor, fractions: Sequence[float], generator: Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The two curves (B, 1 + F) of `Faithfulness` for a batch: most relevant pixels first, and least relevant first.

    order: (B, H, W) from `ranks`.
    """
    num_pixels = order[0].numel()
    counts = [round(fraction * num_pixels) for fraction in fractions]
    order, targets = order.to(images.device), targets.to(images.device)

    def confidence(removed: Tensor) -> np.ndarray:
        probabilities = model(impute(images, removed, NOISE, generator)).softmax(1)
        return probabilities.gather(1, targets[:, None])[:, 0].cpu().numpy()

    intact = confidence(torch.zeros_like(order, dtype=torch.bool))
    most = [confidence(order >= num_pixels - count) for count in counts]
    least = [confidence(order < count) for count in counts]
    return np.stack([intact, *most], axis=1), np.stack([intact, *least], axis=1)


def random_maps(shape: tuple[int, int, int], seed: int, grid: tuple[int, int]) -> np.ndarray:
    """Random maps, as a control: `shape` (B, H, W) float32 in [0, 1], from noise on `grid` (h, w).

    Use the grid of the compared maps: the random maps are then as smooth, and remove patches as large.
    """
    noise = torch.rand(shape[0], 1, *grid, generator=torch.Generator().manual_seed(seed))
    return interpolate(noise, shape[1:], mode="bilinear")[:, 0].numpy()


def impute(images: Tensor, removed: Tensor, noise: float, generator: Generator) -> Tensor:
    """`images` (B, C, H, W) with their `removed` pixels (B, H, W) bool filled in from the pixels around them.

    Each becomes the weighted mean of its neighbours (1/6 beside, 1/12 diagonal), filled ones included, plus Gaussian
    noise of standard deviation `noise`. Each image must keep at least one pixel.
    """
    mask = removed[:, None]
    kept = images.where(~mask, 0)
    start = kept.sum((2, 3), keepdim=True) / (~mask).sum((2, 3), keepdim=True)
    filled = _solve(images.where(~mask, start), mask)
    drawn = torch.randn(images.shape, generator=generator).to(images)
    return torch.where(mask, filled + noise * drawn, images)


def _solve(images: Tensor, mask: Tensor) -> Tensor:
    """Makes each pixel under `mask` the mean of its neighbours: linear equations, solved by conjugate gradients.

    All images and channels are solved at once. The equations are symmetric and positive definite.
    """
    neighbours = images.new_tensor([[[[1, 2, 1], [2, 0, 2], [1, 2, 1]]]]) / 12
    weight = conv2d(torch.ones_like(images[:1, :1]), neighbours, padding=1)

    def apply(x: Tensor) -> Tensor:
        mean = conv2d(x.flatten(0, 1)[:, None], neighbours, padding=1).view_as(x)
        return (weight * x - mean) * mask

    solution = images
    residual = -apply(solution)
    direction, energy = residual, _energy(residual, residual)
    for _ in range(MAX_ITERATIONS):
        if energy.max() <= 1e-9:
            break
        pushed = apply(direction)
        step = energy / _energy(direction, pushed).clamp_min(1e-30)
        solution, residual = solution + step * direction, residual - step * pushed
        before, energy = energy, _energy(residual, residual)
        direction = residual + energy / before.clamp_min(1e-30) * direction
    return solution


def _energy(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).mean((2, 3), keepdim=True)


def ranks(maps: np.ndarray, ties: np.random.Generator) -> Tensor:
    """The rank of each pixel in its map, (B, H, W) int64, the least relevant first and equal pixels in random order."""
    flat = maps.reshape(len(maps), -1)
    order = np.lexsort((ties.random(flat.shape), flat))
    return torch.from_numpy(order.argsort(axis=1)).view(maps.shape)
