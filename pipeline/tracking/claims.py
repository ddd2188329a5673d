"""Lets exactly one process continue a run when several try at the same time."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline import disk
from pipeline.progress import say
from pipeline.tracking import processes, store

CLAIM = f"{processes.HIDDEN_PREFIX}claim"  # tag: the last process that asked to continue the run
SILENT_SECONDS, LOCK_SECONDS = 5, 60  # waiting for the lock: until a message is printed, and in total
SETTLING_SECONDS = 1.0  # from writing a claim to reading it back: longer than a store needs for a change
SETTLING_FACTOR = 4  # for a slow store: wait this many times longer than writing the claim took


@contextmanager
def exclusive(run_id: str) -> Iterator[None]:
    """Inside this context, no other process of this machine can take over the run.

    Raises ValueError if another process holds the lock for a minute, or if the lock cannot be written to the disk.
    """
    path = disk.runs_folder().parent / "locks" / disk.run_folder(run_id).name
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, run_id)
    except Timeout:
        raise ValueError(
            f"run {run_id}: another process has held {path} for {LOCK_SECONDS} s; try again when it has ended"
        ) from None
    except OSError as error:
        raise ValueError(
            f"run {run_id} cannot be locked ({store.first_line(error)}): set XDG_STATE_HOME to another folder"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # a process that waits for it creates it again
        lock.release()


def is_won(client: store.Client, run_id: str) -> bool:
    """Whether this process may continue the run. Only one of all processes that ask now, on any machine, may.

    The winner must continue the run at once. Each process overwrites the claims of the others and waits; then only the
    last claim is left, or the run is already under way. (Fischer's algorithm, see Lamport 1987, A fast mutual
    exclusion algorithm.)
    """
    claim = uuid.uuid4().hex
    started = time.monotonic()
    with suppress(MlflowException):  # if two processes create the tag at the same moment, the database refuses one
        client.set_tag(run_id, CLAIM, claim)
    client.set_tag(run_id, CLAIM, claim)
    time.sleep(max(SETTLING_SECONDS, SETTLING_FACTOR * (time.monotonic() - started)))
    stored = client.get_run(run_id)
    return stored.data.tags.get(CLAIM) == claim and not is_under_way(stored)


def is_under_way(stored: StoredRun) -> bool:
    """Whether a living process is working on the run."""
    return stored.info.status == "RUNNING" and not processes.is_dead(stored.data.tags)


def _acquire(lock: FileLock, run_id: str) -> None:
    try:
        lock.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        say(f"run {run_id}: waiting up to {LOCK_SECONDS} s for another process that continues it")
        lock.acquire(timeout=LOCK_SECONDS - SILENT_SECONDS)
