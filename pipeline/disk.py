"""Files on this machine: written whole or not at all, and the folder where a run keeps what must not be lost."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_state_path

UNFINISHED = ".*.partial"  # files that are being written, or were when their process was killed
PRIVATE = 0o700


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the context ends well and is removed when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("ab") as file:
        _lock(file)
        try:
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)  # the new name is an entry of the folder
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes from a folder, and from those in it, the files that killed processes were writing."""
    for partial in unfinished(folder):
        with suppress(OSError), partial.open("rb") as file:
            if _lock(file):
                partial.unlink()


def unfinished(folder: Path) -> list[Path]:
    """The files that are being written in a folder and in those in it, or were when their process was killed."""
    return sorted(path for path in folder.rglob(UNFINISHED) if path.is_file())


def _lock(file: BinaryIO) -> bool:
    """Locks a file, which the system undoes when the process ends, however it does. Returns whether that is done."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has it, or the disk knows no locks
        return False
    return True


def sync(path: Path) -> None:
    """Waits until a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state_folder() -> Path:
    """Where this user's runs are kept, in a folder that nobody else can enter; XDG_STATE_HOME moves it.

    Raises OSError where it cannot be made.
    """
    path = user_state_path("classifier-pipeline")
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o777 != PRIVATE:  # as earlier versions have made it
        path.chmod(PRIVATE)
    return path


def runs_folder() -> Path:
    """The folder of all runs' folders."""
    return user_state_path("classifier-pipeline") / "runs"


def run_folder(run_id: str) -> Path:
    """Where a run keeps its things; it need not be there yet. Raises ValueError for an id that leads elsewhere."""
    if not re.fullmatch(r"[\w-]+", run_id):
        raise ValueError(f"{run_id} is no run id")
    return runs_folder() / run_id


def remove_if_empty(run_id: str) -> None:
    """Removes the folder of a run that keeps nothing any more."""
    path = run_folder(run_id)
    remove_unfinished(path)
    if path.is_dir() and not any(path.rglob("*.*")):
        shutil.rmtree(path, ignore_errors=True)
