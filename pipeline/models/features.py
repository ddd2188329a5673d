"""What a network makes of images on its way to logits: two thirds of the way, and last of all."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.stages import head


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) of `images` as the model takes them, and features (B, D) float32 on the way to them.

    First the penultimate ones, which go into the head, averaged over their positions where they have any; then, of
    what goes into `inner(model)`, each channel's mean and standard deviation over the positions. By the end,
    where only the classes are distinguished, images of none often look as if they were of one. Raises ValueError for
    a model without a head.
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
    """Of the convolutions and layer norms the one two thirds of the way; None for a network that has neither."""
    # Their very kind: others normalise channels that lie elsewhere. Linear layers are not always called as modules.
    layers = [module for module in model.modules() if type(module) in (nn.Conv2d, nn.LayerNorm)]
    return layers[2 * len(layers) // 3] if layers else None


def _positions_last(layer: nn.Module, values: Tensor) -> Tensor:
    """What goes into `layer` as (B, channels, positions): a convolution's channels come first, others' last."""
    if isinstance(layer, nn.Conv2d):
        return values.flatten(2)
    return values.flatten(1, -2).transpose(1, 2) if values.ndim > 2 else values[:, :, None]
