"""Lines for the person at the terminal, above the bar where one is drawn; few of them where quiet is asked for."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from pipeline.text import visible

TO_AN_EMPTY_LINE = "\r\x1b[K"  # where another process's bar may stand

_is_quiet = False
_depth = 0  # how many things are under way whose end is not that of all


class _NoTerminal:
    """A stream that nobody takes for a terminal to draw on, whatever it is."""

    def __init__(self, stream: Any) -> None:
        self.behind = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def quiet(asked: bool = True) -> Iterator[None]:
    """If asked for: within, only errors and results are shown, and nothing draws a bar, ours or a library's."""
    global _is_quiet
    if not asked:
        yield
        return
    before = _is_quiet
    _is_quiet = True
    try:
        with contextlib.redirect_stderr(_NoTerminal(sys.stderr)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(logging.NOTSET)
        _is_quiet = before


def screen() -> Any:
    """Standard error as it is, also where nothing is to draw on it."""
    return getattr(sys.stderr, "behind", sys.stderr)


def is_quiet() -> bool:
    """Whether only errors and results are shown."""
    return _is_quiet


@contextlib.contextmanager
def inner() -> Iterator[None]:
    """Within, what ends is a part of something, and says so as any line is said."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def answer(message: str) -> None:
    """A line of what was asked for, on standard output."""
    with tqdm.external_write_mode(file=sys.stdout):
        _write(visible(message, keep="\n"), sys.stdout)


def say(message: str) -> None:
    """A line, or several, for the person at the terminal."""
    if not _is_quiet:
        tell(message)


def conclude(message: str) -> None:
    """What all has come to, said in any case; that of a part of something is said as any line is."""
    if not (_is_quiet and _depth):
        tell(message)


def tell(message: str) -> None:
    """What a person must know, said in any case."""
    start = TO_AN_EMPTY_LINE if sys.stderr.isatty() else ""
    with tqdm.external_write_mode(file=sys.stderr):
        _write(start + visible(message, keep="\n"), sys.stderr)


def _write(line: str, stream: Any) -> None:
    # click's echo would write UTF-8 to a stream that says it takes ASCII.
    stream.write(f"{line}\n")
    stream.flush()
