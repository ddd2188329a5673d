"""Networks without memory for their weights: what tensors they would have, and which images they take."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ALLOCATE = {torch.empty, torch.zeros, torch.ones, torch.randn, torch.full}
REFUSALS = (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError)  # networks', of a wrong size


class _Unallocated(TorchFunctionMode):
    """What would hold weights is on the meta device; what a network reckons with as it is built stays real."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in ALLOCATE and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


@contextmanager
def unallocated() -> Iterator[None]:
    """Networks built within have all their tensors, but no memory for weights."""
    with _Unallocated():
        yield


def other_tables(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Those of the indices `model` reckons with, the same whatever it has learned, that are others in `state`.

    `model` may have been built `unallocated`. Buffers that a network keeps out of its state are not among them.
    """
    indices = {name: buffer for name, buffer in model.named_buffers() if not buffer.is_meta and buffer.ndim}
    return [
        name
        for name, buffer in indices.items()
        if name in state and not buffer.is_floating_point() and not torch.equal(buffer.cpu(), state[name].cpu())
    ]


def refusal(build: Callable[[], nn.Module], image_size: int, batch: int) -> str:
    """Why the network that `build` gives cannot train on `batch` images of that size (px); empty where it can."""
    try:
        with unallocated():
            model = build()
        model.to("meta").train()(torch.empty(batch, 3, image_size, image_size, device="meta"))
    except REFUSALS as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return ""
