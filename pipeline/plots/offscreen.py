"""A place for libraries that draw with pyplot."""

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import pyplot


@contextmanager
def offscreen() -> Iterator[None]:
    """Figures that pyplot makes inside need no screen, and are let go of at the end."""
    pyplot.switch_backend("agg")
    try:
        yield
    finally:
        pyplot.close("all")
