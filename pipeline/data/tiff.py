"""TIFF files: refuses costly ones before they take memory, and turns their numbers into levels."""

import struct
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import PREFIXES, TiffImageFile

from pipeline.data.bounds import MAX_PIXELS, Costly

WIDTH, HEIGHT, BITS, WHITE_IS_ZERO, STRIPS, TILE_WIDTH, TILE_HEIGHT, TILES = 256, 257, 258, 262, 273, 322, 323, 324
SUBFILE, DNG_VERSION = 254, 50706
MOST_STRIPS = 2**20  # strips or tiles; each takes one Python number
SIDE_OF_A_TILE = 4096  # px; a tile may have this side even if the image is smaller
WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
RAW = "a raw file of a camera, of which only a preview could be read: convert it to JPEG"


def check(file: BinaryIO) -> None:
    """Raises ValueError for a raw TIFF file of a camera, and Costly for a file that hides how large it is.

    Leaves `file` at its start. A file that this parser cannot read passes, because the decoder cannot read it either.
    """
    file.seek(0)
    try:
        start = file.read(16)
        if not start.startswith(tuple(PREFIXES)):
            return
        tags = _first_page(file, start)
    except (struct.error, OverflowError):
        return
    finally:
        file.seek(0)
    if start[8:10] == b"CR" or DNG_VERSION in tags or tags.get(SUBFILE, (0, 0))[1] & 1:
        raise ValueError(RAW)
    if max((tags[tag][0] for tag in (STRIPS, TILES) if tag in tags), default=0) > MOST_STRIPS:
        raise Costly(f"more than {MOST_STRIPS:,} strips or tiles")
    width, height = (max(tags.get(tag, (0, 0))[1], SIDE_OF_A_TILE) for tag in (WIDTH, HEIGHT))
    across, down = (tags.get(tag, (0, 0))[1] for tag in (TILE_WIDTH, TILE_HEIGHT))
    if across > 2 * width or down > 2 * height or across * down > MAX_PIXELS:
        raise Costly("tiles that are larger than the image")


def _first_page(file: BinaryIO, start: bytes) -> Mapping[int, tuple[int, int]]:
    """(number of values, first value) by tag, of the first page. The value is 0 if its entry holds no whole number."""
    order = ">" if start.startswith(b"MM") else "<"
    is_big = 43 in start[2:4]
    (place,) = struct.unpack_from(f"{order}Q", start, 8) if is_big else struct.unpack_from(f"{order}I", start, 4)
    file.seek(place)
    (number,) = struct.unpack(f"{order}{'Q' if is_big else 'H'}", file.read(8 if is_big else 2))
    entry = struct.Struct(f"{order}HHQ8s" if is_big else f"{order}HHI4s")
    content = file.read(entry.size * min(number, 2**16))
    tags: dict[int, tuple[int, int]] = {}
    for at in range(0, len(content) - entry.size + 1, entry.size):
        tag, kind, count, value = entry.unpack_from(content, at)
        layout = WHOLE_NUMBERS.get(kind, "")
        # A value that does not fit into its entry lies elsewhere in the file.
        is_in_entry = layout and struct.calcsize(f"{order}{layout}") * count <= len(value) and count
        tags.setdefault(tag, (count, struct.unpack_from(f"{order}{layout}", value)[0] if is_in_entry else 0))
    return tags


def in_levels(image: TiffImageFile) -> Image.Image:
    """`image` with numbers that fill the range of its mode. Raises ValueError if the value of white is unknown."""
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits, or with a sign, whose range is not known: convert it to 8 or 16 bits")
    if not image.mode.startswith("I;16"):
        return image.convert("LA") if image.mode == "La" else image
    bits, is_negative = image.tag_v2.get(BITS, (16,))[0], image.tag_v2.get(WHITE_IS_ZERO) == 0
    grey = np.asarray(image) << (16 - bits)
    return Image.fromarray((65535 - grey if is_negative else grey).astype(np.uint16))
