"""The moving average of a network, without waits for the device."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """Keeps the exponential moving average of a network's parameters and buffers in `module`.

    It equals torch's own to the bit, and so does its state. But torch copies the number of updates from the CPU to the
    device in every update, and each copy waits for all pending work of the device. Here the number stays on the CPU.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Adds `model` to the average. The first call copies it."""
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        if self.n_averaged == 0:
            for averaged, current in pairs:
                averaged.copy_(current)
        else:
            for dtype in {averaged.dtype for averaged, _ in pairs}:
                self._average(*zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True), self.n_averaged)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> chain[Tensor]:
    return chain(model.parameters(), model.buffers())
