"""A second measure of attribution maps: the model's confidence as pixels enter a blurred image, and as they leave."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.data.batches import batch_size
from pipeline.explain.faithfulness import ranks
from pipeline.models import untouched

STEPS = 10  # equal parts of the pixels
CELLS = 4  # cells per side; their means make the blurred image, too coarse to recognise an object


def scores(model: nn.Module, images: Tensor, targets: Tensor, maps: np.ndarray, *, seed: int) -> np.ndarray:
    """(B,) in [-1, 1]: mean confidence as the most relevant pixels enter minus that as they leave. Higher is better.

    Insertion and deletion (Petsiuk et al. 2018, arXiv:1806.07421). Both run between the image and its blurred copy, so
    that pixels in random order score 0 on average. Unlike `faithfulness.measure`, it fills nothing in, and compares the
    two ends of one order. `maps` (B, H, W) belong to `images` (B, 3, H, W), as the model takes them, and to
    `targets` (B,) int64. `seed` sets the order of equal pixels.
    """
    ties = np.random.default_rng(seed)
    at_once = batch_size(images.shape[-1])
    with untouched(model), torch.inference_mode():
        batches = [
            _scores(model, images[batch], targets[batch].to(images.device), ranks(maps[batch], ties).to(images.device))
            for batch in (slice(start, start + at_once) for start in range(0, len(images), at_once))
        ]
    return np.concatenate(batches)


def _scores(model: nn.Module, images: Tensor, targets: Tensor, order: Tensor) -> np.ndarray:
    """The scores (B,) of a batch. order: (B, H, W) from `ranks`."""
    blurred = interpolate(interpolate(images, (CELLS, CELLS), mode="area"), images.shape[2:], mode="bilinear")

    def confidence(shown: Tensor) -> Tensor:
        return model(images.where(shown[:, None], blurred)).softmax(1).gather(1, targets[:, None])[:, 0]

    num_pixels = order[0].numel()
    counts = [round(num_pixels * step / STEPS) for step in range(1, STEPS)]  # at both ends the two are equal
    gaps = [confidence(order >= num_pixels - count) - confidence(order < num_pixels - count) for count in counts]
    return torch.stack(gaps).mean(0).cpu().numpy()


def agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(B,) in [0, 1]: the share of pairs of an image's maps in which two measures prefer the same map. Chance is 0.5.

    `one` and `other` (M, B) are the scores of M maps, at least two, of B images. If a measure prefers neither map, the
    pair counts half. After Tomsett et al. 2020, arXiv:1912.01451, who compare measures by how they order maps.
    """
    first, second = np.triu_indices(len(one), 1)
    same = np.sign(one[first] - one[second]) * np.sign(other[first] - other[second])
    shares: np.ndarray = (1 + same).mean(axis=0) / 2
    return shares
