"""Counts the pixels that decoding a HEIC or AVIF file takes. They may be far more than its image has.

Such a file consists of boxes (ISO/IEC 14496-12): a length, a kind of four letters, and content. The box `meta` lists
items (ISO/IEC 23008-12). An item is a coded image with a size (`ispe`), or an image made of other images (`dimg`), for
example a grid of tiles.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.data.bounds import MAX_TILED_PIXELS, Costly

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")
MAX_META = 2**21  # bytes of the box `meta`; phones write some thousands
MOST_BOXES = 1000  # boxes before `meta`
DEEPEST = 8  # levels of images that are made of images


@dataclass
class _Items:
    """The content of the box `meta`, by item number."""

    primary: int = 0
    sizes: list[int] = field(default_factory=list)  # px of each property; 0 if the property is not a size
    properties: dict[int, list[int]] = field(default_factory=dict)  # for each item, places in `sizes`
    parts: dict[int, list[int]] = field(default_factory=dict)  # for each item, its parts, one entry per use

    def pixels(self, item: int, deep: int = 0) -> int:
        """The number of pixels that decoding `item` takes. Raises Costly if there are more than allowed."""
        if deep > DEEPEST:
            raise Costly(f"images made of images, more than {DEEPEST} levels deep")
        if item not in self.parts:
            places = self.properties.get(item, [])
            return max((self.sizes[place - 1] for place in places if place <= len(self.sizes)), default=0)
        costs = {part: self.pixels(part, deep + 1) for part in {*self.parts[item]}}
        total = sum(costs[part] for part in self.parts[item])
        if total > MAX_TILED_PIXELS:
            raise Costly(f"tiles of more than {MAX_TILED_PIXELS:,} pixels, which would take minutes to decode")
        return total


def check(file: BinaryIO) -> None:
    """Raises Costly for a HEIC or AVIF file whose image is made of too many pixels. Leaves `file` at its start.

    A file that this parser cannot read passes, because the decoder cannot read it either.
    """
    file.seek(0)
    try:
        if is_heif_or_avif(file.read(12)):
            items = _items(_meta(file))
            items.pixels(items.primary)
    except (struct.error, IndexError):
        pass
    finally:
        file.seek(0)


def is_heif_or_avif(start: bytes) -> bool:
    """Whether a file claims to be HEIC or AVIF. `start`: at least its first 12 bytes."""
    return start[4:8] == b"ftyp" and start[8:12] in BRANDS


def _meta(file: BinaryIO) -> bytes:
    """The content of the file's box `meta`; empty if there is none."""
    place = 0
    for _ in range(MOST_BOXES):
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            length, head = *struct.unpack(">Q", file.read(8)), 16
        if kind == b"meta":
            if length > MAX_META:
                raise Costly(f"a list of more than {MAX_META:,} bytes, which names its images")
            return file.read(length - head if length else MAX_META)
        if length < head:  # the last box, which has no length, or garbage
            return b""
        place += length
    return b""


def _items(meta: bytes) -> _Items:
    items = _Items()
    for kind, content in _boxes(meta[4:]):
        if kind == b"pitm":
            items.primary = int.from_bytes(content[4 : 6 if content[0] == 0 else 8])
        elif kind == b"iref":
            _read_parts(content, items)
        elif kind == b"iprp":
            for below, part in _boxes(content):
                if below == b"ipco":
                    items.sizes = [_pixels(body) if name == b"ispe" else 0 for name, body in _boxes(part)]
                elif below == b"ipma":
                    _read_properties(part, items)
    return items


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of each box in `content`."""
    place = 0
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if length < 8:
            return
        yield kind, content[place + 8 : place + length]
        place += length


def _pixels(ispe: bytes) -> int:
    width, height = struct.unpack_from(">II", ispe, 4)
    return int(width * height)


def _read_parts(iref: bytes, items: _Items) -> None:
    number = "H" if iref[0] == 0 else "I"
    for kind, content in _boxes(iref[4:]):
        if kind == b"dimg":
            item, count = struct.unpack_from(f">{number}H", content)
            items.parts[item] = [*struct.unpack_from(f">{count}{number}", content, struct.calcsize(f">{number}H"))]


def _read_properties(ipma: bytes, items: _Items) -> None:
    number, place = "H" if ipma[0] == 0 else "I", "H" if ipma[3] & 1 else "B"
    mask = 0x7FFF if place == "H" else 0x7F  # the first bit says whether a reader must know the property
    (num_items,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(num_items):
        item, count = struct.unpack_from(f">{number}B", ipma, at)
        at += struct.calcsize(f">{number}B")
        items.properties[item] = [each & mask for each in struct.unpack_from(f">{count}{place}", ipma, at)]
        at += struct.calcsize(f">{count}{place}")
