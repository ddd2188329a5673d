"""A head whose logits are small before training."""

from torch import Tensor, nn


class ScaledLinear(nn.Linear):
    """A linear layer that multiplies its output by `scale`, so that an untrained network is unsure.

    Without it the loss starts far above the loss of chance, because a maximum over the grid is not small.
    """

    def __init__(self, in_features: int, out_features: int, scale: float, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.scale
