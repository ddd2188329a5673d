"""What a network makes of images before its last layer makes logits of that."""

from torch import Tensor, nn


def with_features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, C) of `images` as the model takes them, and the penultimate features (B, D) they are made of.

    The features are what goes into `head(model)`, averaged over its positions where it has any. Raises ValueError
    for a model without such a layer.
    """
    kept: list[Tensor] = []
    handle = head(model).register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    try:
        logits = model(images)
    finally:
        handle.remove()
    features = kept[-1]
    return logits, features.flatten(2).mean(2) if features.ndim > 2 else features


def head(model: nn.Module) -> nn.Module:
    """The layer that makes the logits: of those with weights, linear or convolutional, the last one declared.

    So it is in every model here and in torchvision's, SqueezeNet's being a convolution.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has neither a linear nor a convolutional layer to take features from")
    return layers[-1]
