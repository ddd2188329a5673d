"""Ranks that each hold a part of the weights, of their gradients and of the optimizer's state: torch's FSDP2.

Rajbhandari et al. 2020 (ZeRO stage 3, arXiv:1910.02054); Zhao et al. 2023 (arXiv:2304.11277).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from pipeline.training.ranks import Ranks
from pipeline.training.recomputation import blocks
from pipeline.training.training import Training

CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # they have no forward pass that could gather their weights


class ShardingRanks(Ranks):
    """Ranks among which a network and its optimizer are divided. Each gathers a block's weights while it needs them."""

    shards = True

    def parallel(self, network: nn.Module) -> nn.Module:
        """`network` itself: its backward pass leaves this rank's part of the mean of the ranks' gradients."""
        return network

    @contextmanager
    def gathered(self, network: nn.Module) -> Iterator[None]:
        """Inside this context, each rank has all weights of `network`, so ranks may call it at different times."""
        parts = _sharded_modules(network)
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(True, recurse=False)
                part.reshard()

    def whole(self, state: Any) -> Any:
        """`state` with complete tensors, on the CPU, in rank 0; an empty one in the others. All ranks must call it."""
        found = _whole(state, self.number == 0)
        return {} if self.number else found

    def ask_for_state(self, wanted: bool) -> bool:
        """Whether rank 0 wants the parts of the state. All ranks must call it."""
        return bool(self.sum(torch.tensor(int(wanted))))


def sharded(training: Training) -> Training:
    """`training` with its network, its moving average and its optimizer divided among its ranks, in place.

    It does not run compiled.
    """
    names = {parameter: name for name, parameter in training.model.named_parameters()}
    for model in (training.model, *([] if training.ema is None else [training.ema.module])):
        _shard(training.part(model))
    parameters = dict(training.model.named_parameters())
    new = {old: parameters[name] for old, name in names.items()}
    _move(training.optimizer, new)
    if training.frozen is not None:
        training.frozen.move(new)
    ranks = ShardingRanks(training.ranks.number, training.ranks.size)
    return replace(training, ranks=ranks, is_compiled=False)


def _shard(network: nn.Module) -> None:
    network.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
    for block in blocks(network):
        if not isinstance(block, CONTAINERS):
            fully_shard(block)
    fully_shard(network, reshard_after_forward=True)


def _sharded_modules(network: nn.Module) -> list[FSDPModule]:
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


def _move(optimizer: Optimizer, new: Mapping[nn.Parameter, nn.Parameter]) -> None:
    """Makes `optimizer` update the `new` parameters in place of the old ones, each with its part of the old state."""
    before = dict(optimizer.state)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for old in group["params"]:
            if old in before:
                optimizer.state[new[old]] = {name: _part(value, new[old]) for name, value in before[old].items()}
        group["params"] = [new[old] for old in group["params"]]


def _part(value: Any, like: nn.Parameter) -> Any:
    """This rank's part of `value`, if it has the shape of the sharded parameter `like`; else `value`, as a count."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape or not value.ndim:
        return value
    return distribute_tensor(value.contiguous(), like.device_mesh, like.placements, src_data_rank=None)


def _whole(state: Any, keeps: bool) -> Any:
    if isinstance(state, Mapping):
        return {name: _whole(each, keeps) for name, each in state.items()}
    if isinstance(state, list):
        return [_whole(each, keeps) for each in state]
    if isinstance(state, DTensor):
        complete = state.full_tensor()  # all ranks take part
        return complete.cpu() if keeps else None
    return state
