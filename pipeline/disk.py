"""Files on this machine: written whole or not at all, and the folder where a run keeps what must not be lost."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_state_path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the context ends well and is removed when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)  # the new name is an entry of the folder
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def runs_folder() -> Path:
    """The folder of all runs' folders; XDG_STATE_HOME moves it."""
    return user_state_path("classifier-pipeline") / "runs"


def run_folder(run_id: str) -> Path:
    """Where a run keeps its things; it need not be there yet. Raises ValueError for an id that leads elsewhere."""
    if not re.fullmatch(r"[\w-]+", run_id):
        raise ValueError(f"{run_id} is no run id")
    return runs_folder() / run_id


def remove_if_empty(run_id: str) -> None:
    """Removes the folder of a run that keeps nothing any more."""
    path = run_folder(run_id)
    if path.is_dir() and not any(path.rglob("*.*")):
        shutil.rmtree(path, ignore_errors=True)
