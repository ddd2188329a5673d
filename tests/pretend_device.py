"""A pretend device: its tensors compute on the CPU, and it records what would be wrong or slow on a GPU.

    with pretend_device() as seen:
        train(device="pretend")
    assert not seen["mixed"]

Kinds of records: `mixed`, an operation on tensors of two devices; `copy`, data that goes from the CPU to the device;
`wait`, a value that the CPU reads, so that it waits for all work of the device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from torch import Generator, Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretend"
READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "is_nonzero"}

Records = dict[str, list[str]]
_seen: Records = {}


class PretendTensor(Tensor):
    """A tensor whose device is the pretend one. `raw` has the values, on the CPU."""

    @staticmethod
    def __new__(cls, raw: Tensor) -> "PretendTensor":
        return Tensor._make_wrapper_subclass(
            cls, raw.shape, raw.stride(), raw.storage_offset(), dtype=raw.dtype, device=torch.device(NAME, 0)
        )

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw

    def tolist(self) -> list:
        return self.cpu().tolist()  # torch's own does not take subclasses

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class PretendGenerator(Generator):
    """A random generator of the pretend device."""

    @property
    def device(self) -> torch.device:
        return torch.device(NAME, 0)

    def __new__(cls, device="cpu") -> "PretendGenerator":
        assert torch.device(device).type == NAME
        return super().__new__(cls)


class _Mode(TorchDispatchMode):
    """Also runs the operations that create tensors on the device, and have none as input."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Module:
    """Answers the questions that torch asks the module of a device."""

    def __getattr__(self, name):
        answers = {"is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0}
        if name in answers:
            return lambda: answers[name]
        raise AttributeError(name)

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        pass

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        pass

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]


@contextmanager
def pretend_device() -> Iterator[Records]:
    """Inside this context, device `pretend` exists. Gives the records, by kind; clear them to start anew."""
    global _seen
    _register()
    _seen = {"mixed": [], "copy": [], "wait": []}
    with pytest.MonkeyPatch.context() as patch, _Mode():
        patch.setattr("pipeline.data.batches.Generator", lambda device="cpu": _generator(device))
        yield _seen


def _generator(device) -> Generator:
    return PretendGenerator(device) if torch.device(device).type == NAME else Generator(device)


@cache
def _register() -> torch.library.Library:
    """Makes the device known to torch, for the rest of this process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    # torch.tensor calls these below everything that is written in Python.
    kernels = torch.library.Library("aten", "IMPL")
    for each in (torch.ops.aten.empty_strided.default, torch.ops.aten.copy_.default):
        kernels.impl(each, lambda *args, each=each, **kwargs: _run(each, args, kwargs), "PrivateUse1")
    return kernels


def _run(func, args, kwargs):
    flat = tree_flatten((args, kwargs))[0]
    ours = [each for each in flat if isinstance(each, PretendTensor)]
    others = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, PretendTensor)]
    target = kwargs.get("device")
    to = None if target is None else torch.device(target).type
    name = func.overloadpacket.__name__
    if ours or to == NAME:
        shapes = ", ".join(f"{each.dtype} {tuple(each.shape)}".removeprefix("torch.") for each in [*others, *ours])
        kind = _kind(name, args, ours, others, to)
        if kind:
            _seen[kind].append(f"{name} {shapes}")
    known = {id(each.raw): each for each in ours}
    raw_args, raw_kwargs = tree_map(lambda each: each.raw if isinstance(each, PretendTensor) else each, (args, kwargs))
    if to == NAME:
        raw_kwargs["device"] = torch.device("cpu")
    result = func(*raw_args, **raw_kwargs)
    stays = to == NAME or (ours and to is None and not (name == "copy_" and not isinstance(args[0], PretendTensor)))
    if not stays:
        return result
    given = {id(each) for each in others}

    def wrapped(each):
        if not isinstance(each, Tensor) or id(each) in given:
            return each
        return known[id(each)] if id(each) in known else PretendTensor(each)

    return tree_map(wrapped, result)


def _kind(name, args, ours, others, to) -> str:
    """The kind of an operation that involves the device; empty if a GPU does it without a copy or a wait."""
    if name in READS:
        return "wait"
    if name in ("_to_copy", "copy_"):
        source = args[1] if name == "copy_" else args[0]
        into = isinstance(args[0], PretendTensor) if name == "copy_" else to == NAME
        if isinstance(source, PretendTensor):
            return "" if into or (name == "_to_copy" and to is None) else "wait"
        return "copy" if into else ""
    if name in ("index", "index_put", "index_put_"):
        indices = [each for each in args[1] if each is not None]
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            return "wait"  # the number of true values decides the shape
        if any(not isinstance(each, PretendTensor) for each in indices):
            return "copy"
    return "mixed" if ours and any(each.ndim for each in others) else ""
