"""ResNet-9: three stages that train fast (Page 2018, "How to train your ResNet", the DAWNBench entry)."""

from torch import Tensor, nn

from pipeline.models.scaled_head import ScaledLinear

HEAD_SCALE = 1 / 8


class Residual(nn.Module):
    """Two convolutions with a shortcut around them; keeps the shape (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(channels, channels), _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ResNet9(nn.Module):
    """Three pooled stages, two with a residual; 6,573,130 parameters for 10 classes at the default width.

    Images (B, 3, H, W) to logits (B, num_classes). The stages have 2, 4 and 8 `width` channels, on grids of
    H/2, H/4 and H/8.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = _convolution(3, width)
        self.layer1 = nn.Sequential(_convolution(width, 2 * width, pool=True), Residual(2 * width))
        self.layer2 = _convolution(2 * width, 4 * width, pool=True)
        self.layer3 = nn.Sequential(_convolution(4 * width, 8 * width, pool=True), Residual(8 * width))
        self.head = ScaledLinear(8 * width, num_classes, HEAD_SCALE)

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.stem(images))))
        return self.head(x.amax(dim=(2, 3)))


def _convolution(channels_in: int, channels: int, pool: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.MaxPool2d(2) if pool else nn.Identity(),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
