"""Formats rows in columns: as wide as the terminal, and one line per row in a pipe."""

import io
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.text import visible

UNLIMITED = 10_000  # columns of a pipe


def table(head: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO, *, wraps: str, right: str = "") -> str:
    """`rows` below `head` as text. It fits the width of the terminal if `stream` is one.

    The column `wraps` may take several lines; the column `right` is aligned to the right.
    """
    is_terminal = stream.isatty()
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        grid.add_column(
            Text(name), justify="right" if name == right else "left", no_wrap=name != wraps, overflow="fold"
        )
    for row in rows:
        cells = row if is_terminal else ["; ".join(cell.splitlines()) for cell in row]
        grid.add_row(*(Text(visible(cell, keep="\n")) for cell in cells))
    width = Console(file=stream).width if is_terminal else UNLIMITED
    written = io.StringIO()
    Console(file=written, width=width, color_system=None, legacy_windows=False).print(grid)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def follow(look: Callable[[], tuple[str, bool]], seconds: float) -> None:
    """Shows the text of `look` on standard output and updates it every `seconds`, until `look` returns False or Ctrl-C.

    `look` returns (text, whether to continue).
    """
    with suppress(KeyboardInterrupt), Live(console=Console(file=sys.stdout), auto_refresh=False) as live:
        is_more = True
        while is_more:
            text, is_more = look()
            live.update(Text(text), refresh=True)
            if is_more:
                time.sleep(seconds)
