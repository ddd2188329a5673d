"""Chooses the device to compute on, and the number format."""

import ctypes
import os
import platform
import warnings
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import psutil
import torch
from torch import nn

from pipeline.data import quotas
from pipeline.params import DeviceParams

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# By the compute capability of a card from NVIDIA: the first generation with bf16 in hardware, and the first in which
# fp16 is faster than fp32 at everything.
BF16_FROM, FP16_FROM = (8, 0), (7, 0)
# Words in torch's errors which say that a device has no memory left. Few such errors have a class of their own.
OUT_OF_MEMORY = (
    "can't allocate memory",  # CPU
    "out of memory",  # CUDA, MPS
    "ALLOC_FAILED",  # cuBLAS, cuDNN
    "DEVICE_ALLOCATION_FAILED",  # cuDNN from version 9
    "unable to find an engine",  # cuDNN: every engine needs more memory for its own use
)


def choose(name: str, *, repeats_shapes: bool = False) -> torch.device:
    """The device called `name`. `auto` is the first of CUDA, Apple's MPS and the CPU that can run a kernel.

    From now on, this process uses at most as many threads as it may use cores, unless OMP_NUM_THREADS says otherwise.
    On the CPU it keeps the memory of large tensors. A GPU named by its number becomes torch's current GPU.
    repeats_shapes: cuDNN tries its kernels once for each shape of a batch, as is right for a training, and keeps the
    fastest.
    Raises ValueError if this machine does not have the device, or if the device cannot run a kernel.
    """
    names = available()
    if name not in ("auto", *names):
        raise ValueError(f"device={name}: not on this machine (devices: {', '.join(names)})")
    if name != "auto" and (reason := why_unusable(name)):
        raise ValueError(f"device={name}: cannot be used ({reason}); device=auto takes another one")
    device = torch.device(next(each for each in names if not why_unusable(each)) if name == "auto" else name)
    if "OMP_NUM_THREADS" not in os.environ and (granted := quotas.cores()) < torch.get_num_threads():
        torch.set_num_threads(granted)  # more threads would wait for each other
    if device.type == "cpu":
        keep_large_blocks()
    if device.index is not None:
        torch.cuda.set_device(device)  # else pinned memory and the like would use memory of the first GPU
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = repeats_shapes
    return device


@cache
def why_unusable(name: str) -> str:
    """Why this process cannot compute on the device `name`, in a few words; empty if a kernel has run on it.

    A card that torch lists may be older than the kernels that torch brings, and a driver may be older than torch needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings say the same in many lines
            (torch.ones(2, device=name) + 1).tolist()
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        return reason.removesuffix(".") or type(error).__name__
    return ""


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
    """The devices of this machine. `auto` chooses the first one that can be used."""
    names = ["cpu"]
    if torch.backends.mps.is_available():
        names.insert(0, "mps")
    if torch.cuda.is_available():
        names[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return names


def choose_precision(name: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`. `auto` is the fastest of them that `device` computes in hardware."""
    return name if name != "auto" else _fastest(device)[0]


def chosen(asked: DeviceParams, device: torch.device, precision: str, because: str = "") -> str:
    """One line for the user: the device and the number format in use, and why.

    because: the reason for the number format, if it does not follow from the device.
    """
    card = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    reasons = []
    if asked.device != "auto":
        reasons.append("this device was asked for")
    elif device.type == "cpu" and available()[0] != "mps":
        reasons.append(f"no GPU ({why_unusable('cuda')})")
    elif str(device) != available()[0]:
        reasons.append(f"{available()[0]} cannot be used: {why_unusable(available()[0])}")
    if asked.precision != "auto":
        reasons.append(f"{precision} was asked for{_price(precision, device)}")
    else:
        reasons.append(because or _fastest(device)[1])
    return f"device {device}{card}, {precision}: {'; '.join(reasons)}"


def _fastest(device: torch.device) -> tuple[str, str]:
    """The fastest number format that `device` computes in hardware, and why."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        shown = "capability {}.{}".format(*capability)
        if capability >= BF16_FROM:
            return "bf16", f"{shown} has bf16"
        return (
            ("fp16", f"{shown} has fp16, not bf16") if capability >= FP16_FROM else ("fp32", f"{shown} has only fp32")
        )
    if device.type == "cpu":
        capable = torch.cpu.get_capabilities()
        has_bf16 = capable.get("avx512_bf16") or capable.get("amx_bf16")
        return ("bf16", "this processor has bf16") if has_bf16 else ("fp32", "this processor has only fp32")
    return "fp32", f"on {device.type}, other number formats have not been tried"


def _price(precision: str, device: torch.device) -> str:
    """A warning if `device` has no hardware for `precision`; else empty."""
    best = _fastest(device)[0]
    is_slow = precision in HALF and precision != best and not (device.type == "cuda" and best == "bf16")
    return f", which this hardware does slowly (precision={best} is faster)" if is_slow else ""


def trains_faster_in_fp32(model: nn.Module, device: torch.device) -> bool:
    """Whether `device` is a CPU and `model` has depthwise convolutions and batch norms: docs/speed.md."""
    layers = list(model.modules())
    is_depthwise = any(isinstance(each, nn.Conv2d) and 1 < each.groups == each.in_channels for each in layers)
    return device.type == "cpu" and is_depthwise and any(isinstance(each, nn.BatchNorm2d) for each in layers)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision for a forward pass: products in `precision`, if that is bf16 or fp16; sums and norms in fp32."""
    return torch.autocast(device.type, dtype=HALF.get(precision), enabled=precision in HALF)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its device had no memory left. Torch shows it by the error's class or words."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


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
