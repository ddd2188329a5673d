"""Compiles the forward and backward pass of training with torch. This changes the speed only, not the network."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

LONG = 5_000  # updates; a training as long as this outweighs a minute of compilation
# A process, such as one of a sweep, compiles several networks and sizes. Beyond its limit (by default 8), torch runs
# without compilation.
MOST_COMPILED = 256  # the most that torch ever keeps


def check(asked: str, device: torch.device) -> None:
    """Raises ValueError if the user asks for compilation and this machine cannot compile."""
    if asked == "on" and (reason := _why_not(device)):
        raise ValueError(f"compile=on: torch cannot compile on this machine ({reason})")


def choose(asked: str, device: torch.device, num_updates: int) -> bool:
    """Whether to compile a training of `num_updates` updates. `auto` compiles long ones on CUDA, if torch can."""
    if asked == "auto":
        return device.type == "cuda" and num_updates >= LONG and not _why_not(device)
    return asked == "on"


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function that computes what `model` computes, with its weights and in its mode. The first call compiles it.

    The weights, names and hooks of `model` do not change, `model` can still be called directly, and both draw the same
    noise. Each size of batch or image is compiled anew.
    """
    options = {"fallback_random": True}
    return torch.compile(model, dynamic=False, options=options, recompile_limit=MOST_COMPILED)  # type: ignore[call-overload]


@cache
def _why_not(device: torch.device) -> str:
    """Why torch cannot compile for `device`, in one line; empty if it can."""
    try:
        torch.compile(torch.sin, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # a missing or broken compiler can raise anything
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""
