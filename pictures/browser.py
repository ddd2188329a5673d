"""Chromium without a window, and its pictures as small PNG files."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LOOK_MS = 60_000  # until what is looked for must be there, on a busy machine too
COLOURS = 256  # of a picture's palette: a third of the bytes of all colours
MAX_BYTES = 300_000


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """A Chromium. Raises ValueError where there is none, or nothing to drive it."""
    if CHROMIUM is None:
        raise ValueError("no Chromium on this machine: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ValueError("playwright is not installed: pip install --editable '.[dev]'") from None
    # Chromium's own sandbox refuses to run as root, as containers do; what is opened here is ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def status(make: Callable[[], object]) -> int:
    """The exit status of making pictures: 0, or 2 where something is missing or mistaken, with one line on stderr."""
    try:
        make()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def keep(picture: bytes, path: Path) -> int:
    """Writes a PNG file of few colours, and of fewer the larger it is. Returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    colours = COLOURS
    while True:
        image.quantize(colours, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
        if (size := path.stat().st_size) <= MAX_BYTES or colours <= 16:
            return size
        colours //= 2
