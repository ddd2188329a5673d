"""Turns Ctrl-C and SIGTERM into one KeyboardInterrupt, so that the program can save its work and close its run."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

REPEAT_SECONDS = 10  # interrupts that follow the first one within this time are ignored
PATIENCE_SECONDS = 4  # an update is interrupted if it takes longer than this; a scheduler kills after 10 s


class Terminated(KeyboardInterrupt):
    """The process has received SIGTERM, for example from a scheduler."""


_last = -math.inf
_held = False
_pending: type[KeyboardInterrupt] | None = None


def raise_once() -> None:
    """Makes SIGINT raise KeyboardInterrupt and SIGTERM raise Terminated. Only the first signal within 10 s counts.

    On Ctrl-C, MLflow's launcher also sends SIGTERM at once. That signal must not interrupt the closing of the run.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def held() -> Iterator[None]:
    """Inside this context, an interrupt waits for the next `pause` or the end of the context, but at most 4 s."""
    global _held, _pending
    _held, _pending = True, None
    try:
        yield
    finally:
        _held = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        pause()


def waiting() -> bool:
    """Whether an interrupt waits for a `pause`."""
    return _pending is not None


def pause() -> None:
    """Raises the waiting interrupt, if there is one."""
    global _pending
    if (kind := _pending) is not None:
        _pending = None
        raise kind


def _interrupt(number: int, _: object) -> None:
    global _last, _pending
    if time.monotonic() - _last <= REPEAT_SECONDS:
        return
    _last = time.monotonic()
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    if not _held:
        raise kind
    _pending = kind
    signal.signal(signal.SIGALRM, _end_patience)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)


def _end_patience(*_: object) -> None:
    pause()
