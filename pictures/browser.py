"""Starts Chromium without a window, and stores its pictures as small PNG files."""

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
LOOK_MS = 60_000  # time limit for content to appear, long enough for a busy machine
COLOURS = 256  # in a picture's palette: this takes a third of the bytes of full colour
MAX_BYTES = 300_000


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """A running Chromium. Raises ValueError if Chromium or playwright is not installed."""
    if CHROMIUM is None:
        raise ValueError("no Chromium on this machine: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ValueError("playwright is not installed: pip install --editable '.[dev]'") from None
    # Chromium's sandbox refuses to run as root, the usual user in containers. Only our own pages are opened here.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def status(make: Callable[[], object]) -> int:
    """Calls `make` and returns the exit status: 0, or 2 after a ValueError, with its message as one line on stderr."""
    try:
        make()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def keep(picture: bytes, path: Path) -> int:
    """Writes a PNG file with at most 256 colours, and fewer if it would be too large. Returns its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    colours = COLOURS
    while True:
        image.quantize(colours, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
        if (size := path.stat().st_size) <= MAX_BYTES or colours <= 16:
            return size
        colours //= 2
