"""What to do about a machine that has no more room, or has lost what a run keeps there."""

import errno
import os
from pathlib import Path

from pipeline import disk
from pipeline.tracking import store
from pipeline.training import device

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def advice(error: BaseException, run_id: str) -> str | None:
    """What a person can do about an error of the machine, in one line; None for any other error."""
    reason = store.first_line(error)
    go_on = f"what was kept before is whole; then go on with resume={run_id}"
    if is_full(error):
        return f"no room to keep the run ({reason}): make room in {disk.run_folder(run_id)}{_unfinished()}; {go_on}"
    if device.is_out_of_memory(error):
        return f"out of memory ({reason}): give it more; {go_on}"
    if _is_of_the_state_folder(error):
        what = f"what the run keeps on this disk is gone, or cannot be written ({reason})"
        return f"{what}; what MLflow has stays, go on with resume={run_id}"
    return None


def is_full(error: BaseException) -> bool:
    """Whether a disk has no more room."""
    return isinstance(error, OSError) and error.errno in FULL


def _unfinished() -> str:
    """Where files are that nobody has finished, if there are such; those of dead processes went at the start."""
    if not (files := disk.unfinished(disk.runs_folder())):
        return ""
    size = sum(file.stat().st_size for file in files) / 2**20
    return f", where unfinished files take {size:.1f} MiB: {', '.join(map(str, files))}"


def _is_of_the_state_folder(error: BaseException) -> bool:
    name = error.filename if isinstance(error, OSError) else None
    return isinstance(name, str | os.PathLike) and Path(name).is_relative_to(disk.runs_folder().parent)
