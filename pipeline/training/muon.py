"""Muon for GPUs: matrices of equal shape are updated together."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon


class StackedMuon(Muon):
    """torch's Muon with fewer operations: each works on all matrices of a shape, or on all matrices of a group.

    It gives the numbers of torch's Muon with `match_rms_adamw`, up to rounding, and has the same state and groups.
    On a GPU, most of the time of a small operation is its launch. On a CPU there is nothing to gain (docs/speed.md).
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every matrix that has a gradient."""
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not matrices:
                continue
            assert group["adjust_lr_fn"] == "match_rms_adamw"
            directions = self._directions(matrices, group)
            if group["weight_decay"]:
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            for shape, numbers in _by_shape(matrices).items():
                some = [directions[number] for number in numbers]
                stack = orthogonal(torch.stack(some), group["ns_coefficients"], group["ns_steps"], group["eps"])
                # In the type and layout of the matrices, so that one launch adds them all.
                updates = stack.to(some[0].dtype, memory_format=torch.contiguous_format).unbind()
                rate = group["lr"] * 0.2 * max(shape) ** 0.5  # the scale of AdamW's updates (arXiv:2502.16982)
                torch._foreach_add_([matrices[number] for number in numbers], updates, alpha=-rate)

    def _directions(self, matrices: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """The gradients with momentum: `matrices` learn along them once they are orthogonal."""
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        states = [self.state[matrix] for matrix in matrices]
        for state, gradient in zip(states, gradients, strict=True):
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
        averages = [state["momentum_buffer"] for state in states]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        return list(torch._foreach_lerp(gradients, averages, group["momentum"])) if group["nesterov"] else averages


def orthogonal(stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix near the nearest orthogonal one, for each of `stack` (N, rows, columns): in bf16, (N, rows, columns).

    Its singular values are about 0.7 to 1.2 (Newton-Schulz, https://kellerjordan.github.io/posts/muon).
    """
    a, b, c = coefficients
    is_tall = stack.shape[1] > stack.shape[2]
    found = stack.bfloat16()
    found = found.mT if is_tall else found
    found = found / found.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = torch.bmm(found, found.mT)
        found = torch.baddbmm(found, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.mT if is_tall else found


def _by_shape(matrices: list[Tensor]) -> dict[torch.Size, list[int]]:
    """By shape, the numbers of the matrices that have it."""
    found: dict[torch.Size, list[int]] = {}
    for number, matrix in enumerate(matrices):
        found.setdefault(matrix.shape, []).append(number)
    return found
