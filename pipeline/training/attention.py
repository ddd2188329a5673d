"""Which of torch's kernels computes attention in an update."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FEW_TOKENS = 145  # of 145 products still win, of 197 they lose: docs/speed.md


def kernel(tokens: int | None, device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Plain products for few `tokens` in bf16 on a CPU; else what torch chooses, as where a network has no tokens.

    Torch's fused kernel is made for long sequences: of few tokens, both passes in bf16 take up to 2.7 times as
    long. Products are computed in fp32 then, and keep their (tokens, tokens) weights until the backward pass.
    """
    if tokens is not None and tokens <= FEW_TOKENS and device.type == "cpu" and precision == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
