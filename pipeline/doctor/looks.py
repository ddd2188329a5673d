"""Computes a thumbnail of each image, and numbers that describe its look, in one pass over all images."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.data import Split
from pipeline.data.augmentation import resize

SIDE = 32  # px of a thumbnail: 3 kB per image, kept in memory
PIXELS_AT_ONCE = 2**23
BLUR_SPAN = 5  # px of the box that blurs an image once more
PLAIN_GRID = 64  # most pixels along each axis whose colour is checked
PLAIN_LEVELS = 3.0  # levels of 255 by which a colour may differ from the median colour and still count as the same
OCTAVES = 4  # of detail; the first is the detail between neighbouring pixels of a thumbnail


@dataclass(frozen=True, eq=False)
class Looks:
    """Descriptions of N images, in their order."""

    thumbnails: np.ndarray  # (N, 3, SIDE, SIDE) uint8
    digests: np.ndarray  # (N,) of 16 bytes: equal only for equal pixels
    contrast: np.ndarray  # (N,) float32: largest standard deviation of the pixels of a channel, in levels
    blur: np.ndarray  # (N,) float32 in [0, 1]: 1 if blurring once more removes nothing
    plain: np.ndarray  # (N,) float32 in [0, 1]: share of pixels that have the median colour
    statistics: np.ndarray  # (N, 12) float32: colours in levels of 255, then details in natural logarithms


def survey(split: Split, *, progress: bool = True) -> Looks:
    """The looks of all images of `split`. Reads each image once."""
    block = max(1, PIXELS_AT_ONCE // int(np.prod(split.source.shape[1:])))
    parts: list[tuple[np.ndarray, ...]] = []
    with tqdm(total=len(split), desc="measuring looks", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(split), block):
            images = split.take(np.arange(start, min(start + block, len(split))))
            parts.append(_describe(images))
            bar.update(len(images))
    return Looks(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _describe(images: np.ndarray) -> tuple[np.ndarray, ...]:
    digests = [hashlib.blake2b(image, digest_size=16).digest() for image in np.ascontiguousarray(images)]
    pixels = torch.from_numpy(images).float()
    small = pixels if images.shape[-1] == SIDE else resize(pixels, SIDE)
    return (
        small.round().clamp(0, 255).to(torch.uint8).numpy(),
        np.array([np.void(digest) for digest in digests]),
        pixels.std(dim=(2, 3), correction=0).amax(1).numpy(),
        blur(pixels.mean(1)).numpy(),
        _plain(pixels).numpy(),
        _statistics(small).numpy(),
    )


def blur(grey: Tensor) -> Tensor:
    """How blurred images (B, H, W) are, (B,) in [0, 1]: the share of their variation that a box blur leaves.

    This is the measure of Crete et al. 2007 (doi:10.1117/12.702790). It is computed along rows and along columns, and
    the larger value counts. It is 1 for an image without variation.
    """
    shares = []
    for axis in (1, 2):
        span, length = BLUR_SPAN // 2, grey.shape[axis]
        index = torch.arange(-span, length + span).clamp(0, length - 1)
        padded = grey.index_select(axis, index)
        variation = grey.diff(dim=axis).abs()
        # A box that moves by one pixel gains the pixel at its front and loses the pixel at its back.
        front, back = (padded.narrow(axis, start, length - 1) for start in (BLUR_SPAN, 0))
        lost = (variation - (front - back).abs() / BLUR_SPAN).clamp(min=0)
        shares.append(1 - lost.sum((1, 2)) / variation.sum((1, 2)).clamp(min=1e-6))
    return torch.stack(shares).amax(0)


def _plain(images: Tensor) -> Tensor:
    """The share (B,) of the pixels of images (B, 3, H, W) that have the median colour, apart from compression noise."""
    step = -(-images.shape[-1] // PLAIN_GRID)
    some = images[..., ::step, ::step].flatten(2)
    return ((some - some.median(2, keepdim=True).values).abs() <= PLAIN_LEVELS).all(1).float().mean(1)


def _statistics(images: Tensor) -> Tensor:
    """For each of images (B, 3, H, W): mean and deviation of each channel, colourfulness, the detail of each octave."""
    colours = [
        images.mean((2, 3)),
        images.std((2, 3), correction=0),
        (images.amax(1) - images.amin(1)).mean((1, 2))[:, None],
    ]
    grey, energies = images.mean(1, keepdim=True), []
    for _ in range(OCTAVES):
        coarse = torch.nn.functional.avg_pool2d(grey, 2)
        energies.append((grey - coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)).square().mean((1, 2, 3)))
        grey = coarse
    energies.append(grey.var((1, 2, 3), correction=0))
    return torch.cat([*colours, torch.stack(energies, 1).add(1).log() / 2], 1)
