"""The standard streams made safe: a closed one leads nowhere, and none ends the program with a traceback."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.training.events import Failure


@contextmanager
def guarded() -> Iterator[None]:
    r"""Within, standard output and standard error take any text, and a closed stream is as /dev/null.

    Characters that a stream cannot encode are written as in Python, such as \xe9. A full disk or a reader that is gone
    raises Failure at standard output; standard error then goes nowhere, since the work is worth more than its lines.
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
    """A stream for text, lost where it takes no more; that is a Failure where what it shows was asked for."""

    def __init__(self, stream: Any, is_asked_for: bool) -> None:
        self._stream = stream
        self._is_asked_for = is_asked_for
        self._lost = ""  # why
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes `text`, where that is possible."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Passes on what was written, where that is possible."""
        self._attempt(self._stream.flush)

    def _attempt(self, act: Callable[[], Any]) -> None:
        if not self._lost:
            try:
                act()
            except OSError as error:
                self._lost = error.strerror or str(error)
                # What the stream still holds has to go somewhere, or Python fails as it ends.
                with suppress(OSError), _nowhere() as nowhere:
                    os.dup2(nowhere.fileno(), self._stream.fileno())
        if self._lost and self._is_asked_for:
            raise Failure(f"standard output takes no more: {self._lost}")


def _nowhere() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123


def _fill_closed_descriptors() -> None:
    """Opens /dev/null for 0, 1 and 2 where they are closed, or the next file, such as a database, takes their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
