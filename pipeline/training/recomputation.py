"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): saves memory, and changes no number."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipeline.models.stages import stages

CHANGEABLE = (list, dict)  # a block may change one that it takes, and could not compute the same again


def recompute(model: nn.Module) -> None:
    """Makes `model` keep only what enters its blocks, and compute a block again in the backward pass.

    It changes the class of the blocks alone, so the names of the weights stay, and copies of `model` work. It only acts
    while a block is in training mode. Raises ValueError if `model` has no blocks.
    """
    if not (found := blocks(model)):
        raise ValueError(f"checkpoint_activations=on: {type(model).__name__} consists of single layers; give off")
    for block in found:
        block.__class__ = _recomputed(type(block))  # type: ignore[arg-type]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The parts of `model` with layers of their own, in the order of the forward pass: its stages, or smaller parts."""
    return [block for stage in stages(model) for module in stage.modules for block in _opened(module)]


def _opened(module: nn.Module) -> list[nn.Module]:
    parts = list(module.children())
    if isinstance(module, nn.Sequential) and all(list(part.children()) for part in parts):
        return [block for part in parts for block in _opened(part)]
    return [module] if parts else []  # a single layer needs what it would save


class _Recomputed:
    """Goes before the class of a block."""

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The output of the block."""
        assert isinstance(self, nn.Module)
        own = super().forward  # type: ignore[misc]
        changeable = any(isinstance(each, CHANGEABLE) for each in (*inputs, *options.values()))
        if changeable or not (self.training and torch.is_grad_enabled()):
            return own(*inputs, **options)
        if torch.compiler.is_compiling():  # a compiled backward pass leaves the buffers alone
            return checkpoint(own, *inputs, use_reentrant=False, **options)
        return checkpoint(own, *inputs, use_reentrant=False, context_fn=partial(_contexts, self), **options)


@cache
def _recomputed(block: type[nn.Module]) -> type[nn.Module]:
    return type(block.__name__, (_Recomputed, block), {})


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of the forward pass of `block` and of its recomputation."""
    return nullcontext(), _buffers_kept(block)


@contextmanager
def _buffers_kept(block: nn.Module) -> Iterator[None]:
    """Gives `block` copies of its buffers for a while, so that its batch norms do not see the batch twice."""
    found = [(each, *named) for each in block.modules() for named in each.named_buffers(recurse=False)]
    for owner, name, buffer in found:
        setattr(owner, name, buffer.clone())
    try:
        yield
    finally:
        for owner, name, buffer in found:
            setattr(owner, name, buffer)
