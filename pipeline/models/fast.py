"""A small network that learns fast: its first layer whitens, and its kernels pass their input on at the start."""

import torch
from torch import Tensor, nn

from pipeline.models.scaled_head import ScaledLinear

PATCH = 2  # px, side of the first layer's kernels
FILTERS = 2 * 3 * PATCH**2  # each direction of a patch and its opposite
EPSILON = 5e-4  # added to the variances, so that directions with only noise are not amplified
HEAD_SCALE = 1 / 16


class Fast(nn.Module):
    """Three pooled stages of two convolutions; 1,972,768 parameters for 10 classes at the default width.

    Images (B, 3, H, W), with sides of 9 px or more, to logits (B, num_classes). The stages have 1, 4 and 4 `width`
    channels. The shape comes from Jordan 2024 (arXiv:2404.00498), the whitening from Page 2018 ("How to train your
    ResNet", part 8), the Dirac initialisation from Zagoruyko and Komodakis 2017 (arXiv:1706.00388).
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        # This layer does not learn, so no gradient has to pass back through the largest maps.
        self.whiten = nn.Conv2d(3, FILTERS, PATCH, bias=False)
        self.whiten.weight.requires_grad_(False)
        self.activation = nn.GELU()  # may gain accuracy over ReLU; costs a tenth of the speed (docs/cifar10_fast.md)
        self.layer1 = _stage(FILTERS, width)
        self.layer2 = _stage(width, 4 * width)
        self.layer3 = _stage(4 * width, 4 * width)
        self.head = ScaledLinear(4 * width, num_classes, HEAD_SCALE, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.activation(self.whiten(images)))))
        return self.head(x.amax(dim=(2, 3)))


@torch.no_grad()
def whiten(model: Fast, images: Tensor) -> None:
    """Sets the first layer so that its outputs for patches of `images` are uncorrelated and have variance 1.

    images: (N, 3, H, W) float32, normalised; some thousand are enough.
    """
    patches = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, FILTERS // 2)
    covariance = (patches.T @ patches).double() / len(patches)
    variances, directions = torch.linalg.eigh(covariance.cpu())
    kernels = (directions / (variances + EPSILON).sqrt()).T.reshape(-1, 3, PATCH, PATCH)
    model.whiten.weight.copy_(torch.cat([kernels, -kernels]))


def _stage(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels_in, channels),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(channels),
        nn.GELU(),
        _convolution(channels, channels),
        nn.BatchNorm2d(channels),
        nn.GELU(),
    )


def _convolution(channels_in: int, channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:channels_in])
    return convolution
