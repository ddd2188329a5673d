"""Prints lines for the user, above the bar if there is one; only a few lines if the user asks for `quiet`."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from pipeline.text import visible

TO_AN_EMPTY_LINE = "\r\x1b[K"  # erases the line, which may hold the bar of another process

_is_quiet = False
_depth = 0  # number of `inner` contexts that are open


class _NoTerminal:
    """Wraps a stream so that no library takes it for a terminal and draws on it."""

    def __init__(self, stream: Any) -> None:
        self.behind = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)

    def isatty(self) -> bool:
        return False


@contextlib.contextmanager
def quiet(asked: bool = True) -> Iterator[None]:
    """If `asked`: inside this context, only errors and results are shown, and nothing draws a bar."""
    global _is_quiet
    if not asked:
        yield
        return
    before, disabled = _is_quiet, logging.root.manager.disable
    _is_quiet = True
    try:
        with contextlib.redirect_stderr(_NoTerminal(sys.stderr)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    finally:
        logging.disable(disabled)
        _is_quiet = before


def screen() -> Any:
    """The original standard error, also inside `quiet`."""
    return getattr(sys.stderr, "behind", sys.stderr)


def is_quiet() -> bool:
    """Whether only errors and results are shown."""
    return _is_quiet


@contextlib.contextmanager
def inner() -> Iterator[None]:
    """Inside this context, the program works on a part of the command; its result is an ordinary line."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1


def answer(message: str) -> None:
    """Prints a result on standard output."""
    with tqdm.external_write_mode(file=sys.stdout):
        _write(visible(message, keep="\n"), sys.stdout)


def say(message: str) -> None:
    """Prints one or more lines for the user, unless quiet."""
    if not _is_quiet:
        tell(message)


def conclude(message: str) -> None:
    """Prints the result of the command, even if quiet. The result of a part of the command is an ordinary line."""
    if not (_is_quiet and _depth):
        tell(message)


def tell(message: str) -> None:
    """Prints what the user must know, even if quiet."""
    start = TO_AN_EMPTY_LINE if sys.stderr.isatty() else ""
    with tqdm.external_write_mode(file=sys.stderr):
        _write(start + visible(message, keep="\n"), sys.stderr)


def _write(line: str, stream: Any) -> None:
    # click.echo would write UTF-8 to a stream that accepts only ASCII.
    stream.write(f"{line}\n")
    stream.flush()
