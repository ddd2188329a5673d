"""The network C-C-C-U-U-U-U-F: convolutions, blocks of attention among features, a linear layer."""

from itertools import pairwise

import torch
from torch import Tensor, nn

CHANNELS = (3, 16, 32, 48)
KEY_DIM = 8
NUM_BLOCKS = 4


class UltimusBlock(nn.Module):
    """Attention among the features of one image, with a shortcut around it: (B, dim) to (B, dim).

    Keys, queries and values are 8 numbers per image. The attention says how much each number of the value contributes
    to each number of the result.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, KEY_DIM)
        self.query = nn.Linear(dim, KEY_DIM)
        self.value = nn.Linear(dim, KEY_DIM)
        self.out = nn.Linear(KEY_DIM, dim)

    def attention(self, x: Tensor) -> Tensor:
        """How much value i (row) contributes to result j (column): softmax(q^T k) / sqrt(8), (B, 8, 8).

        The softmax runs over i, the axis that the product with the values sums: each column adds up to 1 / sqrt(8).
        """
        scores = self.query(x)[:, :, None] * self.key(x)[:, None, :]
        return scores.softmax(dim=1) / KEY_DIM**0.5

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.value(x)[:, None, :] @ self.attention(x)
        return x + self.out(mixed.squeeze(1))


class Ultimus(nn.Module):
    """Images (B, 3, H, W) to logits (B, num_classes); 25,978 parameters for 10 classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*(_convolution(*channels) for channels in pairwise(CHANNELS)))
        self.blocks = nn.Sequential(*(UltimusBlock(CHANNELS[-1]) for _ in range(NUM_BLOCKS)))
        self.head = nn.Linear(CHANNELS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self._pooled(images)))

    def attention(self, images: Tensor) -> Tensor:
        """The attention of every block, (B, 4, 8, 8), each as from `UltimusBlock.attention`."""
        x, matrices = self._pooled(images), []
        for block in self.blocks:
            matrices.append(block.attention(x))  # type: ignore[operator]
            x = block(x)
        return torch.stack(matrices, dim=1)

    def _pooled(self, images: Tensor) -> Tensor:
        return self.features(images).mean(dim=(2, 3))


def _convolution(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
