"""The moving average of a network, taken without a wait for the device."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """In `module`, the exponential moving average of a network's parameters and buffers.

    Torch's own, to the bit and in its state; but torch moves the number of updates from the CPU to the device in every
    one of them, and each time waits for all that the device has to do. Here it stays.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Takes `model` into the average; the first time it is all of it."""
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
