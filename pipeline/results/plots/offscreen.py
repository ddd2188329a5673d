"""A place for libraries that draw with pyplot."""

from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import pyplot


@contextmanager
def offscreen() -> Iterator[None]:
    """Figures that pyplot makes inside need no screen, and at the end are let go of, and their style with them."""
    pyplot.switch_backend("agg")
    with pyplot.rc_context():
        try:
            yield
        finally:
            pyplot.close("all")
