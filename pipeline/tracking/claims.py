"""Which of several processes goes on with a run, where they try to at the same time: one of them, and no other."""

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

CLAIM = f"{processes.UNSEEN}claim"  # tag: of the last process that asked to go on with the run
SILENT_SECONDS, LOCK_SECONDS = 5, 60  # of waiting for the lock: until a message says so, and at most
SETTLING_SECONDS = 1.0  # from a claim to the look at whose it is: longer than a store takes for a change
SLOWER = 4  # times what the claim took, for a store that is slow


@contextmanager
def alone(run_id: str) -> Iterator[None]:
    """Within, no other process of this machine changes whose run it is.

    Raises ValueError where another one has the lock for a minute, or the disk has no place for it.
    """
    path = disk.runs_folder().parent / "locks" / disk.run_folder(run_id).name
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, run_id)
    except Timeout:
        raise ValueError(f"run {run_id}: another process has held {path} for {LOCK_SECONDS} s") from None
    except OSError as error:
        raise ValueError(
            f"run {run_id} cannot be locked ({store.first_line(error)}); XDG_STATE_HOME moves it"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # who waits for it makes it again
        lock.release()


def is_won(client: store.Client, run_id: str) -> bool:
    """Whether this process may go on with the run, of all on any machine that ask now. It is to do so at once.

    Each writes its claim over those of the others and waits: whoever looks then sees the last claim alone, or that the
    run is under way. (Fischer's algorithm, as in Lamport 1987, A fast mutual exclusion algorithm.)
    """
    claim = uuid.uuid4().hex
    started = time.monotonic()
    with suppress(MlflowException):  # a database takes one of two new tags at the same moment, and the other afterwards
        client.set_tag(run_id, CLAIM, claim)
    client.set_tag(run_id, CLAIM, claim)
    time.sleep(max(SETTLING_SECONDS, SLOWER * (time.monotonic() - started)))
    stored = client.get_run(run_id)
    return stored.data.tags.get(CLAIM) == claim and not is_under_way(stored)


def is_under_way(stored: StoredRun) -> bool:
    """Whether a process that lives has the run."""
    return stored.info.status == "RUNNING" and not processes.is_dead(stored.data.tags)


def _acquire(lock: FileLock, run_id: str) -> None:
    try:
        lock.acquire(timeout=SILENT_SECONDS)
    except Timeout:
        say(f"run {run_id}: waiting up to {LOCK_SECONDS} s for another process that goes on with it")
        lock.acquire(timeout=LOCK_SECONDS - SILENT_SECONDS)
