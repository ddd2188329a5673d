"""Makes the standard streams safe: a closed stream discards its text, and no stream error shows a traceback."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.training.events import Failure


@contextmanager
def guarded() -> Iterator[None]:
    r"""Inside this context, standard output and standard error accept any text, and a closed stream is like /dev/null.

    Characters that a stream cannot encode are escaped, such as \xe9. If the disk is full or the reader has gone,
    standard output raises Failure, and standard error is discarded: the work is more important than its messages.
    """
    _fill_closed_descriptors()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = before[0] or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stdout = _Guarded(before[1] or _nowhere(), is_asked_for=True)
    sys.stderr = _Guarded(before[2] or _nowhere(), is_asked_for=False)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


class _Guarded:
    """A stream that discards text after an error. If its text is the result of the command, it raises Failure."""

    def __init__(self, stream: Any, is_asked_for: bool) -> None:
        self._stream = stream
        self._is_asked_for = is_asked_for
        self._lost = ""  # the reason for the error; empty while the stream works
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes `text`, if that is possible."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, if that is possible."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], Any]) -> None:
        if not self._lost:
            try:
                act()
            except OSError as error:
                self._lost = error.strerror or str(error)
                # Python would fail at its end if it could not flush the rest of the stream.
                with suppress(OSError), _nowhere() as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())
        if self._lost and self._is_asked_for:
            raise Failure(f"standard output cannot be written: {self._lost}")


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def _fill_closed_descriptors() -> None:
    """Opens /dev/null for descriptors 0, 1 and 2 if they are closed. Otherwise the next file would get their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
