"""What a network costs, before it has seen an image."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def measure(model: nn.Module, image_size: int) -> dict[str, float]:
    """`flops` of a forward pass and `parameters`, and for a transformer its `tokens`; per image of that size (px).

    A multiplication and an addition count as two, as PyTorch's counter has it; what is no product is not counted.
    """
    device = next(model.parameters()).device
    images = torch.empty(2, 3, image_size, image_size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    costs = {
        "flops": counter.get_total_flops() / len(images),
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
    }
    tokens = getattr(model, "seq_length", None)
    return costs if tokens is None else {**costs, "tokens": float(tokens)}
