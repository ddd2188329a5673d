"""Advice for errors of the machine: no disk space, no memory, or a lost state folder."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from pipeline import disk
from pipeline.tracking import store
from pipeline.training import device

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def advice(error: BaseException, run_id: str) -> str | None:
    """Advice about an error of the machine, in one line; None for any other error."""
    reason = store.first_line(error)
    resume = f"then continue with resume={run_id}; everything saved before is intact"
    if is_full(error):
        return f"the disk is full ({reason}): free space in {disk.run_folder(run_id)}{_unfinished()}; {resume}"
    if device.is_out_of_memory(error):
        return f"out of memory ({reason}): free some, or take a machine with more; {resume}"
    if _is_about_state_folder(error):
        what = f"the run's files on this disk are missing or cannot be written ({reason})"
        return f"{what}: continue with resume={run_id}; everything in MLflow is intact"
    return None


def is_full(error: BaseException) -> bool:
    """Whether the error says that a disk is full."""
    return isinstance(error, OSError) and error.errno in FULL


def _unfinished() -> str:
    """The unfinished files and their size, if any. The start has removed the files of dead processes."""
    sizes: dict[Path, int] = {}
    for file in disk.unfinished(disk.runs_folder()):
        with suppress(FileNotFoundError):  # its process has just finished it
            sizes[file] = file.stat().st_size
    if not sizes:
        return ""
    return f", where unfinished files take {sum(sizes.values()) / 2**20:.1f} MiB: {', '.join(map(str, sizes))}"


def _is_about_state_folder(error: BaseException) -> bool:
    name = error.filename if isinstance(error, OSError) else None
    return isinstance(name, str | os.PathLike) and Path(name).is_relative_to(disk.runs_folder().parent)
