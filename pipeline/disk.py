"""Writes files completely or not at all, and finds the state folder, where runs store what must not be lost."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_state_path

UNFINISHED = ".*.partial"  # files that a process is writing, or was writing when it was killed
PRIVATE = 0o700


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to. It replaces `path` if the context ends without an error, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _create(partial):
        try:
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)  # the new name is an entry of the folder
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes the files that killed processes were writing, in a folder and its sub-folders."""
    for partial in unfinished(folder):
        with suppress(OSError), partial.open("rb") as file:
            # Its process may have finished it after it was opened here, and have begun another one of this name.
            if _lock(file) and os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                partial.unlink()


def unfinished(folder: Path) -> list[Path]:
    """The unfinished files in a folder and its sub-folders."""
    return sorted(path for path in folder.rglob(UNFINISHED) if path.is_file())


def _create(path: Path) -> BinaryIO:
    """Creates a file and locks it; once more, if another process took it for unfinished before it was locked."""
    while True:
        file = path.open("ab")
        with suppress(OSError):  # the disk does not support locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _lock(file: BinaryIO) -> bool:
    """Locks a file. Returns whether that worked. The system frees the lock whenever and however the process ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has locked it, or the disk does not support locks
        return False
    return True


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def state_folder() -> Path:
    """The folder with the state of this user's runs, which nobody else can enter. XDG_STATE_HOME sets its place.

    Raises OSError if it cannot be created.
    """
    path = user_state_path("classifier-pipeline")
    path.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o777 != PRIVATE:  # earlier versions created it like this
        path.chmod(PRIVATE)
    return path


def runs_folder() -> Path:
    """The folder with one folder per run."""
    return user_state_path("classifier-pipeline") / "runs"


def run_folder(run_id: str) -> Path:
    """The state folder of a run, which may not exist yet. Raises ValueError for an id that could leave the folder."""
    if not re.fullmatch(r"[\w-]+", run_id):
        raise ValueError(f"{run_id} is not a run id")
    return runs_folder() / run_id


def remove_if_empty(run_id: str) -> None:
    """Removes the state folder of a run if it is empty."""
    path = run_folder(run_id)
    remove_unfinished(path)
    if path.is_dir() and not any(path.rglob("*.*")):
        shutil.rmtree(path, ignore_errors=True)
