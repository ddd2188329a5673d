"""What computes here, in words."""

import os
import platform
from pathlib import Path

import psutil
import torch


def describe(device: torch.device) -> str:
    """Cores and processor, memory, for CUDA the accelerator before them; system and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    accelerator = f"{torch.cuda.get_device_name(device)}; " if device.type == "cuda" else ""
    return (
        f"{accelerator}{cores} cores of {_processor()}, {psutil.virtual_memory().total / 2**30:.0f} GiB; "
        f"{platform.system()}, Python {platform.python_version()}, PyTorch {torch.__version__}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
