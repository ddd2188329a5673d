"""Torchvision's classification networks, by torchvision's names, for any number of classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import MNASNet, WeightsEnum, get_model, get_model_builder, get_model_weights, list_models

from pipeline.models.architecture import Architecture, CamTarget
from pipeline.models.vit import tokens_to_grid

PREFIX = "torchvision/"  # for a network that shares its name with one of ours


@dataclass(frozen=True)
class _Family:
    """The common properties of the networks in one of torchvision's modules."""

    cam_layer: Callable[[Any], nn.Module]
    to_grid: Callable[[Tensor], Tensor] | None = None
    sized: Callable[[int], Mapping[str, Any]] | None = None  # arguments that depend on image_size
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments that do not

    def cam_target(self, model: Any) -> CamTarget:
        return CamTarget(self.cam_layer(model), self.to_grid)


def _channels_first(grid: Tensor) -> Tensor:
    """Converts (B, h, w, C), the order of Swin transformers, to (B, C, h, w)."""
    return grid.permute(0, 3, 1, 2)


def _features(model: Any) -> nn.Module:
    found: nn.Module = model.features
    return found


# There are no auxiliary heads: they help with 1000 classes and weeks of training. The published weights need
# `transform_input`; for other weights, it only changes the scale.
_INCEPTION: Mapping[str, Any] = {"aux_logits": False, "init_weights": True, "transform_input": True}
# The keys are modules of torchvision. Each layer is the last one with a grid. In a transformer it holds the tokens
# before they are gathered, as in our own ViT.
_FAMILIES = {
    "alexnet": _Family(_features),
    "convnext": _Family(_features),
    "densenet": _Family(_features),
    "efficientnet": _Family(_features),
    "googlenet": _Family(lambda model: model.inception5b, fixed=_INCEPTION),
    "inception": _Family(lambda model: model.Mixed_7c, fixed=_INCEPTION),
    "maxvit": _Family(lambda model: model.blocks[-1], sized=lambda size: {"input_size": (size, size)}),
    "mnasnet": _Family(lambda model: model.layers),
    "mobilenetv2": _Family(_features),
    "mobilenetv3": _Family(_features),
    "regnet": _Family(lambda model: model.trunk_output),
    "resnet": _Family(lambda model: model.layer4),
    "shufflenetv2": _Family(lambda model: model.conv5),
    "squeezenet": _Family(_features),
    "swin_transformer": _Family(lambda model: model.norm, _channels_first),
    "vgg": _Family(_features),
    "vision_transformer": _Family(
        lambda model: model.encoder.layers[-1].ln_1, tokens_to_grid, lambda size: {"image_size": size}
    ),
}


class _MNASNet(MNASNet):
    """torchvision's MNASNet, which also accepts a state without the version that only torchvision's own files have."""

    _load_from_state_dict = nn.Module._load_from_state_dict


def torchvision_name(name: str) -> str:
    """torchvision's name for the network that we call `name`."""
    return name.removeprefix(PREFIX)


def names() -> list[str]:
    """The names of torchvision's networks."""
    return list_models(module=torchvision.models)


def default_weights(name: str) -> WeightsEnum:
    """The default weights that torchvision publishes for its network called `name`. Downloads nothing."""
    return get_model_weights(torchvision_name(name)).DEFAULT


def find(name: str) -> Architecture | None:
    """Torchvision's network called `name`; None if there is none."""
    its_name = torchvision_name(name)
    if its_name not in names():
        return None
    family = _FAMILIES[family_of(name)]
    return Architecture(partial(_build, its_name, family), ("image_size",), family.cam_target)


def family_of(name: str) -> str:
    """The name of the torchvision module that has the network called `name`."""
    return str(get_model_builder(torchvision_name(name)).__module__.rpartition(".")[2])


def _build(name: str, family: _Family, num_classes: int, image_size: int) -> nn.Module:
    sized = family.sized(image_size) if family.sized else {}
    try:
        model: nn.Module = get_model(name, weights=None, num_classes=num_classes, **family.fixed, **sized)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"image_size={image_size}: {name} cannot be built for it ({error})") from None
    if isinstance(model, MNASNet):
        model.__class__ = _MNASNet
    return model
