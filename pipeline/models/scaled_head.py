"""A head whose fresh logits are small."""

from torch import Tensor, nn


class ScaledLinear(nn.Linear):
    """A linear layer whose output is multiplied by `scale`, so that fresh weights are unsure.

    Without it the loss begins far above that of chance, as a maximum over the grid is not small.
    """

    def __init__(self, in_features: int, out_features: int, scale: float, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features) * self.scale
