"""The moving average of a network, without waits for the device."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """Keeps the exponential moving average of a network's parameters and buffers in `module`.

    It equals torch's own to the bit. But torch copies the number of updates from the CPU to the device in every update,
    and each copy waits for all pending work of the device. Here the number stays on the CPU. Torch also averages whole
    numbers, such as the count of a batch norm, one by one. Here they are copied, all at once.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Adds `model` to the average. The first call copies it."""
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        for dtype in {averaged.dtype for averaged, _ in pairs}:
            averaged, current = map(list, zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True))
            if self.n_averaged == 0 or not dtype.is_floating_point:
                torch._foreach_copy_(averaged, current)
            else:
                self._average(averaged, current, self.n_averaged)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers; of a parameter that is divided among ranks, the part of this rank."""
    parameters = (each.to_local() if hasattr(each, "to_local") else each for each in model.parameters())
    return chain(parameters, model.buffers())
