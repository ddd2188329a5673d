"""Tests whether maps show what was learned: randomises networks, at once or from the head down, and compares maps."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline.models.ensemble import Ensemble
from pipeline.models.stages import head, stages


def randomised_copy(model: nn.Module, seed: int) -> nn.Module:
    """A copy of `model` that has learned nothing: weights drawn anew, statistics reset.

    If maps of the trained model look like maps of the copy, they show the image and not what the model learned (Adebayo
    et al. 2018, arXiv:1810.03292). A head that starts at zero is drawn too.
    """
    device = next(model.parameters()).device
    copy = deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for module in copy.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if reset:
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                nn.init.normal_(parameter, std=0.02)
    return copy.to(device)


def cascade(model: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Yields a network whose parts lose what they learned, from the head to the first stage, and the name of each part.

    Cascading randomisation (Adebayo et al. 2018): each part gets the weights and statistics of `randomised_copy`. All
    steps yield the same copy of `model`, changed in place. All members of an ensemble lose a part at the same time.
    """
    if isinstance(model, Ensemble):
        each = [cascade(member, seed + place) for place, member in enumerate(model.members)]
        for steps in zip(*each, strict=True):
            yield steps[0][0], Ensemble(network for _, network in steps)
        return
    unlearned, copy = randomised_copy(model, seed).state_dict(), deepcopy(model)
    places = {id(tensor): name for name, tensor in copy.state_dict(keep_vars=True).items()}
    name, last = head(copy)
    parts: list[tuple[str, list[Tensor]]] = [(name, [*last.parameters()])]
    for stage in reversed(stages(copy)):
        buffers = [buffer for module in stage.modules for buffer in module.buffers()]
        parts.append((stage.name, [*stage.parameters, *buffers]))
    for name, tensors in parts:
        with torch.no_grad():
            for tensor in tensors:
                if id(tensor) in places:
                    tensor.copy_(unlearned[places[id(tensor)]])
        yield name, copy


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(B,) in [-1, 1]: the rank correlation of two maps (B, H, W) of each image; 0 if one map is constant."""
    a, b = (pd.DataFrame(maps.reshape(len(maps), -1)).rank(axis=1).to_numpy() for maps in (one, other))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.where(scale > 0, (a * b).sum(axis=1) / np.maximum(scale, 1e-12), 0)
