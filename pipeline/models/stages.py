"""Any network as its stages in the order of the forward pass, and its head apart."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

# Whose children are stages, and which are none themselves: ours and torchvision's.
OPENED = {"features", "layers", "blocks", "encoder", "trunk_output", "classifier", "heads"}


@dataclass
class Stage:
    """Some neighbouring modules, and all parameters that learn or freeze with them."""

    name: str
    modules: list[nn.Module] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


def stages(model: nn.Module) -> list[Stage]:
    """The stages from the images on, without the head; together with the head's they hold every parameter once.

    A child with children of its own is a stage, as are the children of those in OPENED. Bare layers make one together,
    up to a pooling; those without a matrix, such as a last norm, belong to the stage before them. What has no
    parameters, such as a dropout, goes with what it feeds.
    """
    last = head(model)[1]
    found: list[Stage] = []
    is_open = False  # to a further bare layer
    loose: list[nn.Parameter] = []  # of the model itself, such as a class token
    feeding: list[nn.Module] = []  # the next part
    for name, part in _parts(model, "", loose):
        if part is last:
            continue
        is_bare = next(part.children(), None) is None
        own = list(part.parameters())
        if not own:
            is_open = is_open and "Pool" not in type(part).__name__
            feeding.append(part)
            continue
        if found and is_bare and (is_open or all(parameter.ndim <= 1 for parameter in own)):
            found[-1].parameters.extend(own)
        else:
            found.append(Stage(name, [], own))
            is_open = is_bare
        found[-1].modules.extend([*feeding, part])
        feeding.clear()
    found[0].parameters.extend(loose)
    return found


def head(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the layer that gives the logits: the last with a matrix of its own."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


def _parts(module: nn.Module, prefix: str, loose: list[nn.Parameter]) -> Iterator[tuple[str, nn.Module]]:
    loose.extend(module.parameters(recurse=False))
    for name, child in module.named_children():
        if name in OPENED and next(child.children(), None) is not None:
            yield from _parts(child, f"{prefix}{name}.", loose)
        else:
            yield f"{prefix}{name}", child
