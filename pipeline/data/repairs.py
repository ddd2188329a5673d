"""Repairs files whose pixels are complete but whose other content is damaged."""

import random
import re
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, ImageChops

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PIXELS_NEED = (b"tRNS", b"eXIf")  # optional PNG chunks that change the picture: transparency and orientation
# The same for JPEG: markers, with the start and the least length of their content. They hold colours and orientation.
JPEG_NEEDS = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}
WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
METADATA = {*range(0xE0, 0xF0), 0xFE}  # JPEG markers for application data and comments
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers for size and components
SCAN, END = 0xDA, b"\xff\xd9"
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # ends a scan; the excluded codes may occur within a scan
COEFFICIENTS = 64  # in a block of pixels
# Bits that no picture ends with, and their inverse. Longer than the 10 blocks that are decoded at a time.
NOISE = bytes(random.Random(0).choices(range(1, 255), k=2**12))
OPPOSITE = bytes(255 - byte for byte in NOISE)


def repaired(content: bytes) -> bytes | None:
    """The PNG, JPEG or WebP file `content` without metadata that may be unreadable; None for other formats.

    A JPEG whose pixels are complete also gets a missing end marker. Files that lack pixels stay unreadable.
    """
    if content.startswith(PNG):
        return PNG + b"".join(_chunks(content))
    if content.startswith(JPEG):
        return _with_end(_without_metadata(content))
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp(content)
    return None


def _chunks(content: bytes) -> Iterator[bytes]:
    """The chunks of a PNG that the picture needs. Optional ones are included only if their checksum is right."""
    place = len(PNG)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        is_optional = kind[0] & 0x20
        if not is_optional or (kind in PIXELS_NEED and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])):
            yield chunk
        place += 12 + length


def _webp(content: bytes) -> bytes:
    kept, place = [], 12
    while place + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, place)
        behind = place + 8 + length + length % 2
        if kind in WEBP_PIXELS or (kind == b"EXIF" and behind <= len(content)):
            kept.append(content[place:behind])
        place = behind
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment between a JPEG's first and last marker. A scan includes its data."""
    place = len(JPEG)
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # padding before a marker
            place += 1
            continue
        if marker == END[1]:
            return
        behind = place + 2 + int.from_bytes(content[place + 2 : place + 4])
        if marker == SCAN:
            found = NEXT_MARKER.search(content, behind)
            behind = found.start() if found else len(content)
        yield marker, place, behind
        place = behind


def _without_metadata(content: bytes) -> bytes:
    kept, place = [JPEG], len(JPEG)
    for marker, first, behind in _segments(content):
        start, length = JPEG_NEEDS.get(marker, (b"", 0))
        body = content[first + 4 : behind]
        if marker not in METADATA or (start and body.startswith(start) and len(body) >= length):
            kept.append(content[first:behind])
        place = behind
    return b"".join(kept) + content[place:]


def _with_end(content: bytes) -> bytes:
    """`content`, with an end marker if nothing else is missing."""
    body = content.rstrip(b"\0") if content.endswith(b"\0\0") else content  # reserved disk space, never written
    if body.endswith(b"\xff"):  # a data byte whose 0 was stripped above, or half a marker
        body = body + b"\0" if len(body) < len(content) else body[:-1]
    if body.endswith(END) or not (_has_all_scans(body) and _ends_whole(body)):
        return content
    return body + END


def _has_all_scans(content: bytes) -> bool:
    """Whether the scans hold the last bit of every coefficient of every component."""
    num_components, done = 0, defaultdict[int, set[int]](set)
    for marker, first, behind in _segments(content):
        if marker in FRAMES and behind - first > 9:
            num_components = content[first + 9]
        elif marker == SCAN:
            length = int.from_bytes(content[first + 2 : first + 4])
            header = content[first + 4 : first + 2 + length]
            if len(header) < 6 or len(header) != 4 + 2 * header[0]:
                return False
            start, end, bits = header[-3:]
            if bits & 0x0F == 0:
                for component in header[1:-3:2]:
                    done[component].update(range(start, end + 1))
    return 0 < num_components == len(done) and all(len(each) == COEFFICIENTS for each in done.values())


def _ends_whole(content: bytes) -> bool:
    """Whether a JPEG without an end marker has all its bits, so that the picture does not depend on what follows.

    The decoder shows grey for missing pixels, without an error. So this decodes the file twice: once followed by noise,
    once by the inverse noise, each on both sides of the marker that the decoder may expect. If bits are missing, the
    two pictures differ.
    """
    *_, (_, last_scan, _) = _segments(content)
    restarts = RESTART.findall(content, last_scan)
    expected = restarts[-1][1] - 0xCF if restarts else 0
    pictures = []
    for noise in (NOISE, OPPOSITE):
        more = noise + b"\xff" + bytes([0xD0 + expected % 8]) + noise
        with Image.open(BytesIO(content + more + END), formats=("JPEG",)) as image:
            image.load()
            pictures.append(image.copy())
    return ImageChops.difference(*pictures).getbbox() is None
