"""The forward and backward pass of training as torch compiles it: for speed alone, on a network that stays as it is."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

LONG = 5_000  # updates of a training that a minute of compilation is little beside
# Networks and sizes of a process, such as those of a sweep; beyond its limit, by default 8, torch goes on uncompiled.
MOST_COMPILED = 256  # the most that torch ever keeps


def check(asked: str, device: torch.device) -> None:
    """Raises ValueError where compilation is asked for and cannot be had."""
    if asked == "on" and (reason := _why_not(device)):
        raise ValueError(f"compile=on: torch cannot compile on this machine ({reason})")


def choose(asked: str, device: torch.device, num_updates: int) -> bool:
    """Whether a training of so many updates is compiled: `auto` is for long ones on CUDA, where it can be had."""
    if asked == "auto":
        return device.type == "cuda" and num_updates >= LONG and not _why_not(device)
    return asked == "on"


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """What computes as `model` does, with its weights and in its mode, compiled when it is first called.

    Weights, names and hooks stay those of `model`, which can still be called by itself, and noise is drawn as it draws
    it. Each size of batches or images is compiled anew.
    """
    options = {"fallback_random": True}
    return torch.compile(model, dynamic=False, options=options, recompile_limit=MOST_COMPILED)  # type: ignore[call-overload]


@cache
def _why_not(device: torch.device) -> str:
    """What keeps torch from compiling for `device`, in a line; empty where it can."""
    try:
        torch.compile(torch.sin, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # whatever a compiler that is not there, or does not work, makes of it
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""
