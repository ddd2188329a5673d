"""Takes features from a network: from the input of its last stage, and from the input of its head."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.ensemble import Ensemble
from pipeline.models.stages import head, stages


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) for `images` as the model takes them, and features (B, D) float32 from inside the network.

    Raises ValueError for a model without a head.
    """
    logits, of_head, of_stage = with_layer_inputs(model, images)
    return logits, joined(of_head, of_stage)


def with_layer_inputs(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, C), and the inputs of the head (B, D) and of the last stage (B, E), averaged over their positions.

    Both inputs are float32. E is 0 for a network without such a stage. An ensemble gives the inputs of its first
    member.
    """
    if isinstance(model, Ensemble):
        first, *others = model.members
        logits, of_head, of_stage = with_layer_inputs(first, images)
        return model.mean([logits, *(member(images) for member in others)]), of_head, of_stage
    last, before = head(model)[1], start_of_last_stage(model)
    kept: dict[nn.Module, Tensor] = {}

    def keep(layer: nn.Module, inputs: Any) -> None:
        kept[layer] = _positions_last(layer, inputs[0].float()).mean(2)

    handles = [layer.register_forward_pre_hook(keep) for layer in (last, before) if layer is not None]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    of_head = kept[last]
    # A network may have a layer that only a training calls.
    return logits, of_head, of_head[:, :0] if before is None else kept.get(before, of_head[:, :0])


def joined(of_head: Tensor, of_stage: Tensor) -> Tensor:
    """Features (B, D + E) from the two inputs, each scaled to length 1.

    The input of the head alone would not do: it only separates the classes, and images of no class often look as if
    they had one.
    """
    return torch.cat([F.normalize(of_head, dim=1), F.normalize(of_stage, dim=1)], dim=1)


def start_of_last_stage(model: nn.Module) -> nn.Module | None:
    """The first convolution or layer norm of the last stage that has one; None if no stage has one."""
    # Only these exact types: subclasses may have their channels elsewhere. Not all linear layers are called as modules.
    for stage in reversed(stages(model)):
        for part in stage.modules:
            for layer in part.modules():
                if type(layer) in (nn.Conv2d, nn.LayerNorm):
                    return layer
    return None


def _positions_last(layer: nn.Module, values: Tensor) -> Tensor:
    """The input of `layer` as (B, channels, positions). Convolutions have their channels first, other layers last."""
    if isinstance(layer, nn.Conv2d):
        return values.flatten(2)
    return values.flatten(1, -2).transpose(1, 2) if values.ndim > 2 else values[:, :, None]
