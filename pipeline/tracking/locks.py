"""Locks between the processes of one user, in a folder that nobody else can enter. In /tmp, anybody could hold them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline import disk
from pipeline.progress import say

SILENT_SECONDS, PATIENCE_SECONDS = 5, 600


class Busy(OSError):
    """Another process has held a lock for too long."""


def file(name: str) -> Path:
    """The file of the lock `name`. The system frees a lock when its process dies."""
    folder = disk.state_folder() / "locks"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.lock"


def take(lock: FileLock, holder: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Takes `lock`, and prints a message if it must wait for the `holder`. Raises Busy after `seconds`."""
    try:
        lock.acquire(timeout=min(SILENT_SECONDS, seconds))
        return
    except Timeout:
        say(f"waiting up to {seconds:.0f} s for {holder} ({lock.lock_file})")
    try:
        lock.acquire(timeout=max(0.0, seconds - SILENT_SECONDS))
    except Timeout:
        raise Busy(f"{holder} did not end within {seconds:.0f} s: end it, or remove {lock.lock_file}") from None


@contextmanager
def held(name: str, holder: str, seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Inside this context, no other process of this user holds the lock `name`."""
    lock = FileLock(file(name))
    take(lock, holder, seconds)
    try:
        yield
    finally:
        lock.release()
