"""Networks without memory for their weights, to see which tensors they have and which images they take."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ALLOCATE = {torch.empty, torch.zeros, torch.ones, torch.randn, torch.full}
REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError)  # of networks, for a wrong size


class _Unallocated(TorchFunctionMode):
    """Puts tensors for weights on the meta device. Tables that a network computes while it is built stay real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in ALLOCATE and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextmanager
def unallocated() -> Iterator[None]:
    """Networks built inside this context have all their tensors, but no memory for weights."""
    with _Unallocated():
        yield


def other_tables(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """The names of the index tables of `model` that differ in `state`. Training never changes these tables.

    `model` may be built `unallocated`. Buffers that a network leaves out of its state are ignored.
    """
    indices = {name: buffer for name, buffer in model.named_buffers() if not buffer.is_meta and buffer.ndim}
    return [
        name
        for name, buffer in indices.items()
        if name in state and not buffer.is_floating_point() and not torch.equal(buffer.cpu(), state[name].cpu())
    ]


def refusal(build: Callable[[], nn.Module], image_size: int, batch: int) -> str:
    """Why the network from `build` cannot train on `batch` images of `image_size` px; empty if it can."""
    try:
        with unallocated():
            model = build()
        model.to("meta").train()(torch.empty(batch, 3, image_size, image_size, device="meta"))
    except REFUSALS as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""
