"""Batch norms whose statistics are of the whole batch, wherever its images are."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function


class SyncedNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d over the images of all ranks, on any device. On GPUs, torch's SyncBatchNorm is faster."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> the same shape and type, normalised per channel."""
        if not self.training:
            return super().forward(images)
        values = images.float()
        sums = torch.cat([values.sum((0, 2, 3)), values.new_tensor([values.numel() / values.shape[1]])])
        sums = _Sum.apply(sums)
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        self._update(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        result = centred * scale[:, None, None]
        return (result if self.bias is None else result + self.bias[:, None, None]).to(images.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _Sum(Function):
    """The sum over the ranks. Its gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def synchronise(model: nn.Module) -> None:
    """Synchronises the batch norms of `model`. Raises ValueError if it has a kind of batch norm that cannot be.

    It changes the layers themselves, so that whatever refers to a layer still does.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if type(module) is not nn.BatchNorm2d:
            raise ValueError(
                f"sync_norms=on: layer {name}, a {type(module).__name__}, cannot be synchronised; give sync_norms=off"
            )
        module.__class__ = SyncedNorm2d if on_cpu else nn.SyncBatchNorm  # type: ignore[assignment]
        module.process_group = None  # type: ignore[assignment]
