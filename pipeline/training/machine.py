"""What computes here, in words."""

import os
import platform
from pathlib import Path

import psutil
import torch


def describe(device: torch.device) -> str:
    """Cores in use and processor, memory, for CUDA the accelerator before them; system and versions."""
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
