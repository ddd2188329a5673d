"""Takes features from a network: from a layer two thirds of the way to the logits, and from the input of the head."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.stages import head


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) for `images` as the model takes them, and features (B, D) float32 from inside the network.

    The first features are the input of the head, averaged over its positions, if any. The others are each channel's
    mean and standard deviation over the positions of the input of `inner(model)`. They are needed because the last
    features only separate the classes: there, images of no class often look as if they had one. Raises ValueError for a
    model without a head.
    """
    last, before = head(model)[1], inner(model)
    kept: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, inputs: Any) -> None:
        kept[layer] = _positions_last(layer, inputs[0].float())

    handles = [layer.register_forward_pre_hook(keep) for layer in (last, before) if layer is not None]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    parts = [kept[last].mean(2)]
    if before is not None:
        parts += [kept[before].mean(2), kept[before].std(2, correction=0)]
    return logits, torch.cat(parts, dim=1)


def inner(model: nn.Module) -> nn.Module | None:
    """The convolution or layer norm two thirds of the way through `model`; None for a network that has neither."""
    # Only these exact types: subclasses may have their channels elsewhere. Not all linear layers are called as modules.
    layers = [module for module in model.modules() if type(module) in (nn.Conv2d, nn.LayerNorm)]
    return layers[2 * len(layers) // 3] if layers else None


def _positions_last(layer: nn.Module, values: Tensor) -> Tensor:
    """The input of `layer` as (B, channels, positions). Convolutions have their channels first, other layers last."""
    if isinstance(layer, nn.Conv2d):
        return values.flatten(2)
    return values.flatten(1, -2).transpose(1, 2) if values.ndim > 2 else values[:, :, None]
