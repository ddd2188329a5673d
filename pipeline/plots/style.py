"""What all figures share: colours that the colour-blind can tell apart, fonts, and text taken as it is."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#888888"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9")

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.titlesize": 11,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw` under the project's style, which is then as it was."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def shorten(name: str, length: int) -> str:
    """`name` as plain text of at most `length` characters, an ellipsis where it was cut; a dollar starts no formula."""
    printable = "".join(character if character.isprintable() else " " for character in name)
    short = printable if len(printable) <= length else printable[: length - 1] + "…"
    return short.replace("$", r"\$")
