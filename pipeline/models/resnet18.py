"""ResNet-18 for small images: a 3x3 stem and no max-pooling (He et al. 2016, arXiv:1512.03385)."""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class ResNet18(nn.Module):
    """Four stages of two basic blocks; 11,173,962 parameters for 10 classes at the default width.

    Images (B, 3, H, W) to logits (B, num_classes). The stages have `width`, 2, 4 and 8 `width` channels, on
    grids of H, H/2, H/4 and H/8.
    """

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.head = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        return self.head(x.mean(dim=(2, 3)))


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    shortcut = None
    if channels_in != channels:
        # A pooling drops the pixels, with the same result as a stride of the convolution: on a CPU, a 1x1 convolution
        # with a stride and fewer than 16 channels writes past its memory (oneDNN issue 6035).
        shortcut = nn.Sequential(
            nn.MaxPool2d(1, stride), nn.Conv2d(channels_in, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
    return nn.Sequential(BasicBlock(channels_in, channels, stride, shortcut), BasicBlock(channels, channels))
