"""What all figures share: layout, type sizes, colours that the colour-blind can tell apart, and text taken as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#888888"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9")

# Points. Given to each text, not to rcParams: those are one for the whole process, and threads draw at a time.
TITLE, LABEL, SMALL = 11, 9, 8
TITLE_CHARACTERS_PER_INCH = 11


def sheet(width: float, height: float, title: str) -> Figure:
    """An empty figure of `width` by `height` inches under its title, which wraps."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(fit(title, int(width * TITLE_CHARACTERS_PER_INCH), lines=3), size=TITLE)
    return figure


def dress(axes: Axes, x: str = "", y: str = "", grid: bool = True) -> None:
    """Labels `axes` and leaves of their frame what helps to read them."""
    axes.set_xlabel(x, size=LABEL)
    axes.set_ylabel(y, size=LABEL)
    axes.tick_params(which="both", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(alpha=0.25)


def colour_bar(figure: Figure, mappable: ScalarMappable, axes: Any, label: str, **layout: Any) -> None:
    """A bar beside `axes` that says what the colours of `mappable` mean."""
    bar = figure.colorbar(mappable, ax=axes, **layout)
    bar.set_label(label, size=LABEL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def fit(text: str, width: int, lines: int = 1) -> str:
    """`text` as it is, in at most `lines` lines of `width` characters, its middle cut out where it is longer.

    The ends stay, since names differ there and numbers stand there. A dollar starts no formula, and what the font
    cannot draw is given by its code point.
    """
    drawable, room = "".join(map(_drawable, text)), width * lines
    if len(drawable) > room:
        head = room // 2
        drawable = f"{drawable[:head]}…{drawable[head + 1 - room :]}"
    rows = wrap(drawable, width, break_on_hyphens=False)
    if len(rows) > lines:
        rows = [drawable[start : start + width] for start in range(0, len(drawable), width)]
    return "\n".join(rows).replace("$", r"\$")


def _drawable(character: str) -> str:
    if not character.isprintable():
        return " "
    font = get_font(findfont(FontProperties()))
    return character if font.get_char_index(ord(character)) else f"U+{ord(character):04X}"


@contextmanager
def offscreen() -> Iterator[None]:
    """Figures that pyplot makes inside need no screen, and at the end are let go of, and their style with them."""
    pyplot.switch_backend("agg")
    with pyplot.rc_context():
        try:
            yield
        finally:
            pyplot.close("all")
