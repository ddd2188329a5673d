"""Makes JPEG files whose scans hold almost no data."""

import struct


def segment(code: int, content: bytes) -> bytes:
    """A JPEG segment: marker, length and content."""
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def jpeg(side: int, num_scans: int, *, frame: int = 0xC2, components: int = 1, header: bytes = b"") -> bytes:
    """A JPEG with `num_scans` scans of one channel each; progressive unless `frame` is 0xc0. `components`: channels."""
    channels = bytes(value for number in range(components) for value in (number + 1, 0x11, 0))
    tables = [
        segment(0xDB, bytes([0, *[1] * 64])),
        segment(frame, struct.pack(">BHHB", 8, side, side, components) + channels),
        *(segment(0xC4, bytes([table, 1, *[0] * 15, 0])) for table in (0x00, 0x10)),  # one code, which means 0
    ]
    last = 63 if frame == 0xC0 else 0
    scans = [_scan(number % components + 1, 0, last) for number in range(components)]
    for number in range(num_scans - components):
        band = (0, 63) if frame == 0xC0 else (1 + number % 63,) * 2
        scans.append(_scan(number % components + 1, *band))
    return b"".join([b"\xff\xd8", header, *tables, *scans[:num_scans], b"\xff\xd9"])


def _scan(channel: int, first: int, last: int) -> bytes:
    return segment(0xDA, bytes([1, channel, 0x00, first, last, 0])) + bytes(170)
