"""Chooses the device to compute on, and the number format."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import torch
from torch import nn

from pipeline.data import quotas


def choose(name: str) -> torch.device:
    """The device called `name`. `auto` is the first that exists of CUDA, Apple's MPS and the CPU.

    From now on, this process uses at most as many threads as it may use cores, unless OMP_NUM_THREADS says otherwise.
    On the CPU it keeps the memory of large tensors. A GPU named by its number becomes torch's current GPU.
    Raises ValueError if this machine does not have the device.
    """
    names = available()
    if name not in ("auto", *names):
        raise ValueError(f"device={name}: not on this machine (devices: {', '.join(names)})")
    device = torch.device(names[0] if name == "auto" else name)
    if "OMP_NUM_THREADS" not in os.environ and (granted := quotas.cores()) < torch.get_num_threads():
        torch.set_num_threads(granted)  # more threads would wait for each other
    if device.type == "cpu":
        keep_large_blocks()
    if device.index is not None:
        torch.cuda.set_device(device)  # else pinned memory and the like would use memory of the first GPU
    return device


def of_worker(name: str, number: int) -> str:
    """The device of worker `number`, counted from 0. If `name` leaves the GPU open, the workers take turns."""
    gpus = [each for each in available() if each.startswith("cuda:")]
    return gpus[number % len(gpus)] if len(gpus) > 1 and name in ("auto", "cuda") else name


def random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    """Inside this context, code may draw and seed random numbers. On exit, the CPU and `device` get their states back.

    It does not read the state of any other GPU: a context on each would take half a GB.
    """
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def available() -> list[str]:
    """The devices of this machine. The first is the one that `auto` chooses."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.insert(0, "mps")
    if torch.cuda.is_available():
        names[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return names


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32` or `bf16`. `auto` is bf16 if `device` computes it in hardware."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        capable = torch.cpu.get_capabilities()
        return "bf16" if capable.get("avx512_bf16") or capable.get("amx_bf16") else "fp32"
    return "fp32"


def trains_faster_in_fp32(model: nn.Module, device: torch.device) -> bool:
    """Whether `device` is a CPU and `model` has depthwise convolutions and batch norms: docs/speed.md."""
    layers = list(model.modules())
    is_depthwise = any(isinstance(each, nn.Conv2d) and 1 < each.groups == each.in_channels for each in layers)
    return device.type == "cpu" and is_depthwise and any(isinstance(each, nn.BatchNorm2d) for each in layers)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision for a forward pass: products in bf16 if `precision` is `bf16`; sums and norms in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its device had no memory left. For the CPU, only torch's message shows it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT_BYTES = 2**31 - 1  # the most to keep free at the end of the heap; the system gets the rest back
GROWN_BYTES = 2**28  # the least that the heap grows by, in address space: only used pages take memory


def keep_large_blocks() -> bool:
    """Makes this process reuse freed large blocks, and returns whether it does: on Linux with glibc, nowhere else.

    By default, glibc maps every block of 32 MB or more on its own and unmaps it when it is freed. So in every update
    the kernel must zero each activation of a network again, page by page.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wanted = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEPT_BYTES, M_TOP_PAD: GROWN_BYTES}
    return all(libc.mallopt(option, value) == 1 for option, value in wanted.items())


def describe(device: torch.device) -> str:
    """The cores in use, processor, memory, system and versions. On CUDA, the accelerator comes first."""
    accelerator = f"{torch.cuda.get_device_name(device)}; " if device.type == "cuda" else ""
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} cores of {_processor()}"
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    versions = f"{platform.system()}, Python {platform.python_version()}, PyTorch {torch.__version__}"
    return f"{accelerator}{cores}, {memory}; {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
