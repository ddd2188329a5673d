"""Builds our networks, torchvision's and timm's by name, and finds the layer where their maps are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.models import backbones, outlines, timm_networks
from pipeline.models.architecture import Architecture, CamTarget
from pipeline.models.ensemble import first_of
from pipeline.models.fast import Fast, whiten
from pipeline.models.resnet9 import ResNet9
from pipeline.models.resnet18 import ResNet18
from pipeline.models.ultimus import Ultimus
from pipeline.models.vit import ViT, tokens_to_grid

__all__ = ["MODELS", "Architecture", "CamTarget", "build", "cam_target", "fit_to_images", "needs_images", "outline"]

LARGEST = 1024  # px, the largest image side tried in the search for a size that fits

# Grad-CAM averages a channel's gradient over the grid. After the last stage this loses nothing, because the head also
# pools over the grid. The finer grid of the stage before halves the faithfulness of the maps: on digits, at 32 px,
# 0.21 against 0.40 for resnet18 and 0.25 against 0.45 for resnet9 (`faithfulness.measure`, 64 images);
# 0.14 against 0.18 for fast (32 images).
# In a ViT, only the class token of the last block's output reaches the head, so its image tokens have no gradient.
# The image tokens after `ln_1` have one, because the class token gathers from them later.
MODELS = {
    "resnet18": Architecture(ResNet18, ("width",), lambda model: CamTarget(model.layer4)),
    "resnet9": Architecture(ResNet9, ("width",), lambda model: CamTarget(model.layer3)),
    "fast": Architecture(Fast, ("width",), lambda model: CamTarget(model.layer3), fit_to=whiten),
    "ultimus": Architecture(Ultimus, (), lambda model: CamTarget(model.features)),
    "vit": Architecture(
        ViT,
        ("image_size", "patch_size", "dim", "depth", "heads"),
        lambda model: CamTarget(model.encoder.layers[-1].ln_1, tokens_to_grid),
    ),
}


def build(name: str, *, num_classes: int, image_size: int, **options: int) -> nn.Module:
    """The network called `name` with fresh weights. It uses the `options` that it takes and ignores the others.

    The options: `width` (channels of the first stage), `patch_size` (px), `dim`, `depth` and `heads`.
    Raises ValueError for an unknown name or option, and for sizes that do not fit together.
    """
    known = {option for each in MODELS.values() for option in each.options}
    if unknown := options.keys() - known:
        raise ValueError(f"no model takes {', '.join(sorted(unknown))} (options: {', '.join(sorted(known))})")
    architecture = _find(name)
    given = {"image_size": image_size, **options}
    return architecture.build(num_classes, **{key: given[key] for key in architecture.options if key in given})


def outline(name: str, *, num_classes: int, image_size: int, **options: int) -> nn.Module:
    """The result of `build` without memory for its weights, to compare or to count them."""
    with outlines.unallocated():
        return build(name, num_classes=num_classes, image_size=image_size, **options)


def check_size(name: str, image_size: int, batch: int, first_size: int = 0, **options: int) -> None:
    """Raises ValueError if the network `name` cannot train on `batch` images of `image_size` or `first_size` px.

    `options` are the options of `build`. Also raises ValueError if there is no such network.
    """
    _find(name)

    def refusal(size: int, batch: int, built_for: int = 0) -> str:
        built = partial(build, name, num_classes=2, image_size=built_for or size, **options)
        return outlines.refusal(built, size, batch)

    # The parameters already check the sizes of our own networks.
    if name not in MODELS and refusal(image_size, 2):
        larger = next((size for size in range(image_size + 1, LARGEST + 1) if not refusal(size, 2)), None)
        advice = f"the next that fits is {larger}" if larger else "a smaller one may fit"
        raise ValueError(f"image_size={image_size} does not fit {name}: {advice}")
    if first_size and (reason := refusal(first_size, 2, image_size)):
        raise ValueError(f"first_size={first_size} does not fit {name} ({reason})")
    if batch == 1 and (reason := refusal(min(image_size, first_size or image_size), 1, image_size)):
        raise ValueError(f"batch_size leaves a last batch of one image, which {name} cannot train on ({reason})")


def needs_images(name: str) -> bool:
    """Whether some weights of the network called `name` depend on train images; `fit_to_images` sets them."""
    return _find(name).fit_to is not None


def fit_to_images(name: str, model: nn.Module, images: Tensor) -> None:
    """Sets the weights of `model` that depend on `images` (N, 3, H, W), normalised. Call it before any training."""
    fit_to = _find(name).fit_to
    if fit_to is not None:
        fit_to(model, images)


def cam_target(name: str, model: nn.Module) -> CamTarget:
    """The layer where the class activation maps of `model`, built as `name`, are read.

    In an ensemble, it is the layer of the first member. Raises ValueError for an unknown name.
    """
    return _find(name).cam_target(first_of(model))


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside this context, the model evaluates in full precision with frozen parameters. On exit, all is as before.

    Full precision means fp32 on a GPU too, not TF32, which rounds the factors of a convolution to 10 bits.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    device = parameters[0][0].device
    products = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    roundings = [each.fp32_precision for each in products]
    try:
        for each in products:
            each.fp32_precision = "ieee"
        model.eval().requires_grad_(False)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for each, rounding in zip(products, roundings, strict=True):
            each.fp32_precision = rounding
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, gradient in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient


def _find(name: str) -> Architecture:
    architecture = MODELS.get(name) or timm_networks.find(name) or backbones.find(name)
    if architecture is None:
        raise ValueError(
            f"no model is called {name!r} (own: {', '.join(MODELS)}; or one of torchvision's; or timm/<name>)"
        )
    return architecture
