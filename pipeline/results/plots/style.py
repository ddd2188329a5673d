"""The common style of all figures: layout, type sizes, colours for the colour-blind, and text shown literally."""

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

# In points. Each text gets its size, because rcParams are global and several threads draw at once.
TITLE, LABEL, SMALL = 11, 9, 8
TITLE_CHARACTERS_PER_INCH = 11


def sheet(width: float, height: float, title: str) -> Figure:
    """An empty figure of `width` by `height` inches with a title, which may take several lines."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(fit(title, int(width * TITLE_CHARACTERS_PER_INCH), lines=3), size=TITLE)
    return figure


def dress(axes: Axes, x: str = "", y: str = "", grid: bool = True) -> None:
    """Labels `axes`, and removes the parts of their frame that do not help reading."""
    axes.set_xlabel(x, size=LABEL)
    axes.set_ylabel(y, size=LABEL)
    axes.tick_params(which="both", labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(alpha=0.25)


def colour_bar(figure: Figure, mappable: ScalarMappable, axes: Any, label: str, **layout: Any) -> None:
    """Adds a bar beside `axes` that explains the colours of `mappable`."""
    bar = figure.colorbar(mappable, ax=axes, **layout)
    bar.set_label(label, size=LABEL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def fit(text: str, width: int, lines: int = 1) -> str:
    """`text` in at most `lines` lines of `width` characters. If it is longer, its middle is cut out.

    Both ends stay, because names differ there and numbers are there. A dollar sign does not start a formula, and a
    character that the font lacks is replaced by its code point.
    """
    drawable, room = _drawable(text), width * lines
    if len(drawable) > room:
        head = room // 2
        drawable = f"{drawable[:head]}…{drawable[head + 1 - room :]}"
    rows = wrap(drawable, width, break_on_hyphens=False)
    if len(rows) > lines:
        rows = [drawable[start : start + width] for start in range(0, len(drawable), width)]
    return "\n".join(rows).replace("$", r"\$")


def _drawable(text: str) -> str:
    font = get_font(findfont(FontProperties()))
    spaced = (each if each.isprintable() else " " for each in text)
    return "".join(each if font.get_char_index(ord(each)) else f"U+{ord(each):04X}" for each in spaced)


@contextmanager
def offscreen() -> Iterator[None]:
    """Inside this context, pyplot draws without a screen. At the end, its figures are closed and its style is reset."""
    pyplot.switch_backend("agg")
    with pyplot.rc_context():
        try:
            yield
        finally:
            pyplot.close("all")
