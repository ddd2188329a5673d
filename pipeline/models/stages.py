"""Splits any network into its stages, in the order of the forward pass, and its head."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
# Modules with these names are not stages, but their children are. The names come from our networks, torchvision's
# and timm's.
OPENED = {"features", "layers", "blocks", "stages", "encoder", "trunk_output", "classifier", "heads"}


@dataclass
class Stage:
    """Some neighbouring modules, and all parameters that learn or freeze with them."""

    name: str
    modules: list[nn.Module] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)


def stages(model: nn.Module) -> list[Stage]:
    """The stages from the images on, without the head. Stages and head together hold every parameter exactly once.

    A child with children of its own is a stage, and so are the children of those in OPENED. Consecutive bare layers
    form one stage, up to a pooling. A layer without a matrix, such as a last norm, belongs to the stage before it. A
    part without parameters, such as a dropout, belongs to the part that it feeds.
    """
    last = head(model)[1]
    found: list[Stage] = []
    is_open = False  # whether the last stage accepts another bare layer
    loose: list[nn.Parameter] = []  # parameters of the model itself, such as a class token
    feeding: list[nn.Module] = []  # parts that feed the next part
    for name, part in _parts(model, "", loose):
        if part is last:
            continue
        is_bare = next(part.children(), None) is None
        own = list(part.parameters())
        if not own:
            is_open = is_open and "Pool" not in type(part).__name__
            feeding.append(part)
            continue
        if found and ((is_bare and is_open) or all(parameter.ndim <= 1 for parameter in own)):
            found[-1].parameters.extend(own)
        else:
            found.append(Stage(name, [], own))
            is_open = is_bare
        found[-1].modules.extend([*feeding, part])
        feeding.clear()
    for first in found[:1]:
        first.parameters.extend(loose)
    return found


def head(model: nn.Module) -> tuple[str, nn.Module]:
    """Name and module of the layer that gives the logits: the last declared linear or convolutional layer.

    This rule is right for every model here and in torchvision; SqueezeNet's head is a convolution. Raises ValueError
    for a model without such a layer.
    """
    layers = [(name, each) for name, each in model.named_modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has neither a linear nor a convolutional layer to take features from")
    return layers[-1]


def _parts(module: nn.Module, prefix: str, loose: list[nn.Parameter]) -> Iterator[tuple[str, nn.Module]]:
    loose.extend(module.parameters(recurse=False))
    for name, child in module.named_children():
        if name in OPENED and next(child.children(), None) is not None:
            yield from _parts(child, f"{prefix}{name}.", loose)
        else:
            yield f"{prefix}{name}", child


def freeze_norms(model: nn.Module) -> None:
    """Makes the batch norms of `model`, in training mode, use and keep their running statistics."""
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.eval()


class Frozen:
    """Freezes the first `num_stages` stages of `model` (None: all but the head) before `until_epoch` (0: always).

    Create it before anything is frozen, and call `begin` at each epoch. The epoch alone decides which stages learn.
    Raises ValueError for more stages than the network has.
    """

    def __init__(self, model: nn.Module, num_stages: int | None, until_epoch: int) -> None:
        found = stages(model)
        if num_stages is not None and num_stages > len(found):
            names = ", ".join(stage.name for stage in found)
            raise ValueError(f"freeze={num_stages}: the network has {len(found)} stages before its head ({names})")
        self.stages = found[:num_stages]
        self._until = until_epoch
        # Layers that never learn, such as a whitened first layer, must stay frozen.
        self._learning = [each for stage in self.stages for each in stage.parameters if each.requires_grad]

    def holds(self, epoch: int) -> bool:
        """Whether anything is frozen in `epoch`, counted from 1."""
        return not self._until or epoch < self._until

    def move(self, new: Mapping[nn.Parameter, nn.Parameter]) -> None:
        """Freezes the `new` parameters in place of the old ones."""
        self._learning = [new[each] for each in self._learning]
        for stage in self.stages:
            stage.parameters = [new[each] for each in stage.parameters]

    def begin(self, epoch: int) -> None:
        """Freezes or unfreezes the stages. Call it after the model enters training mode.

        Frozen stages are in evaluation mode: their batch norms keep their statistics, and they drop nothing.
        """
        frozen = self.holds(epoch)
        for parameter in self._learning:
            parameter.requires_grad_(not frozen)
        if frozen:
            for stage in self.stages:
                for module in stage.modules:
                    module.eval()
