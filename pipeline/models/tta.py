"""Test-time views: averages a model's answers over several versions of each image."""

import torch.nn.functional as F
from torch import Tensor, nn


class Views(nn.Module):
    """The mean of `model`'s logits over views of each image: the image itself, and its mirror image (left to right).

    With 6 views, these two count for half of the mean. The other half are the two, moved by 1 px along the diagonal in
    both directions (Jordan 2024, arXiv:2404.00498). Images (B, 3, H, W) to logits (B, C).
    """

    def __init__(self, model: nn.Module, views: int) -> None:
        super().__init__()
        self.model = model
        self.views = views

    def forward(self, images: Tensor) -> Tensor:
        logits = self._both_ways(images)
        if self.views == 2:
            return logits
        padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
        moved = [self._both_ways(padded[..., :-2, :-2]), self._both_ways(padded[..., 2:, 2:])]
        return (2 * logits + moved[0] + moved[1]) / 4

    def _both_ways(self, images: Tensor) -> Tensor:
        return (self.model(images).float() + self.model(images.flip(-1)).float()) / 2
