"""Where to compute, and in which number format."""

from contextlib import AbstractContextManager

import torch

from pipeline.training import allocator


def choose(name: str) -> torch.device:
    """The device called `name`; `auto` is the first of CUDA, Apple's MPS and the CPU that is there.

    Where it is the CPU, this process keeps the memory of large tensors from here on.
    Raises ValueError for a device this machine lacks.
    """
    names = available()
    if name not in ("auto", *names):
        raise ValueError(f"device={name}: not on this machine (devices: {', '.join(names)})")
    device = torch.device(names[0] if name == "auto" else name)
    if device.type == "cpu":
        allocator.keep_large_blocks()
    return device


def available() -> list[str]:
    """The devices of this machine, the one that `auto` is first."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.insert(0, "mps")
    if torch.cuda.is_available():
        names[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return names


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` is bf16 where `device` computes it in hardware."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        capable = torch.cpu.get_capabilities()
        return "bf16" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision for a forward pass: products in bf16 where `precision` says so, sums and norms in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its device had no memory left; torch tells of the CPU's in words only."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
