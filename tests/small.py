"""Small real parts that several tests share."""

import numpy as np
import torch
from torch import nn

from pipeline.data import Split


def squares(num_images, seed=0):
    """A split of 8 x 8 images whose class is the bright quadrant."""
    labels = np.arange(num_images, dtype=np.int64) % 4
    images = np.random.default_rng(seed).integers(0, 60, (num_images, 3, 8, 8), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    return Split(images, np.arange(num_images), labels, [f"train/{i}" for i in range(num_images)])


def plain(images, labels, place, generator):
    """Augmentation that only converts pixels to floats."""
    return images.float() / 255 - 0.3, labels


def network(seed=0):
    """A small network for the images of `squares`."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
