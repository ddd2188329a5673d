"""Counts the scans of a JPEG file. Each is a pass over all pixels, even if the scan itself has few bytes."""

import os
import re
from typing import BinaryIO, NamedTuple

from pipeline.data.bounds import Costly

# 0xff and a code. The code is not 0x00, which follows 0xff in data, nor a marker without length and meaning (restarts).
MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
START, SCAN, END = b"\xd8", b"\xda", b"\xd9"
FRAMES = {bytes([code]) for code in range(0xC0, 0xD0)} - {b"\xc4", b"\xc8", b"\xcc"}
SEQUENTIAL = {b"\xc0", b"\xc1"}
BLOCK = 2**13  # bytes read at a time
MOST_SEGMENTS = 10_000  # in a file; the largest files of cameras have some hundreds


class _Frame(NamedTuple):
    is_sequential: bool
    num_components: int


def num_scans(file: BinaryIO, most: int) -> int:
    """The number of scans of a JPEG in `file`, found without decoding; 1 for other files. Counting ends at `most` + 1.

    If the first scan holds the whole image, the result is 1, because nothing after it is decoded. Leaves `file` at its
    start. Raises Costly if the file has too many segments: reading its header would take seconds.
    """
    file.seek(0)
    try:
        start = file.read(BLOCK)
        if not start.startswith(b"\xff" + START):
            return 1
        if len(start) < BLOCK and (seen := start.count(b"\xff" + SCAN)) <= most:
            return max(1, seen)  # an upper limit, which is enough: a small file needs no exact count
        file.seek(2)
        return _count(file, most)
    finally:
        file.seek(0)


def _count(file: BinaryIO, most: int) -> int:
    scans, frame = 0, None
    for _ in range(MOST_SEGMENTS):
        code = _next_marker(file, is_header=not scans)
        if code in (b"", END):
            return max(1, scans)
        content = _segment(file)
        if code in FRAMES and len(content) > 5:
            frame = _Frame(code in SEQUENTIAL, content[5])
        elif code == SCAN:
            scans += 1
            if scans > most or (scans == 1 and frame and content[:1] and frame == _Frame(True, content[0])):
                return scans
    raise Costly(f"more than {MOST_SEGMENTS:,} segments, which no camera and no program writes")


def _next_marker(file: BinaryIO, is_header: bool) -> bytes:
    """The code of the next marker; empty if the file has no more."""
    while block := file.read(BLOCK):
        if found := MARKER.search(block):
            file.seek(found.end() - len(block), os.SEEK_CUR)
            return found[1]
        if is_header and len(block) == BLOCK:
            raise Costly(f"{BLOCK:,} bytes of its header mean nothing")
        if block[-1:] == b"\xff" and len(block) > 1:
            file.seek(-1, os.SEEK_CUR)
    return b""


def _segment(file: BinaryIO) -> bytes:
    """The first bytes of the segment after a marker. Leaves `file` at the end of the segment."""
    head = file.read(8)
    length = max(2, int.from_bytes(head[:2]))
    file.seek(length - len(head), os.SEEK_CUR)
    return head[2:length]
