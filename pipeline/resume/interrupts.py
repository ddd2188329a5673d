"""Ctrl-C and SIGTERM as one KeyboardInterrupt, so that whatever runs keeps what it has and closes its run."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

INSISTING_SECONDS = 10  # after which a second Ctrl-C means it
PATIENCE_SECONDS = 4  # for which an update may go on before it is cut short; a scheduler kills after 10


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as schedulers send it."""


_last = -math.inf
_held = False
_pending: type[KeyboardInterrupt] | None = None


def raise_once() -> None:
    """Lets SIGINT raise KeyboardInterrupt and SIGTERM raise Terminated, the first of them within 10 seconds.

    MLflow's launcher answers Ctrl-C with a SIGTERM of its own at once: it must not cut the unwinding short.
    """
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def held() -> Iterator[None]:
    """Within, an interrupt waits for the next `pause` or the end, however that comes, or for 4 seconds."""
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
    """Raises the interrupt that waits."""
    global _pending
    if (kind := _pending) is not None:
        _pending = None
        raise kind


def _interrupt(number: int, _: object) -> None:
    global _last, _pending
    if time.monotonic() - _last <= INSISTING_SECONDS:
        return
    _last = time.monotonic()
    kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
    if not _held:
        raise kind
    _pending = kind
    signal.signal(signal.SIGALRM, _insist)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)


def _insist(*_: object) -> None:
    pause()
