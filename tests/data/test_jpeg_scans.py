"""A JPEG is refused at once if its scans or segments would take minutes. All others are decoded."""

import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.data import decoder
from pipeline.data.bounds import MAX_SCANS
from pipeline.data.decoder import decode
from pipeline.data.jpeg_scans import BLOCK, num_scans
from tests.data.jpegs import jpeg, segment

EXIF = segment(0xE1, b"Exif\0\0x")


def photo(mode="RGB", size=(300, 200), **options):
    """The bytes of a JPEG that Pillow has written, longer than one block of reading."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
    assert len(file.getvalue()) > BLOCK
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "scans"),
    [
        (photo(), 1),
        (photo("L"), 1),
        (photo("CMYK"), 1),
        (photo(progressive=True), 10),
        (photo("L", progressive=True), 6),
        (photo(restart_marker_blocks=1), 1),
        (photo(progressive=True, restart_marker_blocks=1), 10),
        (photo(comment=b"\xff\xda" * 3000), 1),
        (photo(progressive=True, exif=b"Exif\0\0" + photo(size=(150, 150), progressive=True)), 10),  # as a thumbnail
        (photo(progressive=True) + photo(progressive=True), 10),  # as a second picture behind it
        (jpeg(16, 90), 90),
        (jpeg(16, 90, frame=0xC0, components=3), 90),
        (jpeg(16, 300), MAX_SCANS + 1),
        (jpeg(16, 300, frame=0xC0), 1),  # the first holds all there is
        (jpeg(16, 300, frame=0xC0, components=3), MAX_SCANS + 1),
        (photo()[: BLOCK + 100], 1),
        (b"\xff\xd8", 1),
        (b"", 1),
        (b"\x89PNG" + b"\xff\xda" * 5000, 1),
    ],
)
def test_scans_are_counted(content, scans):
    file = io.BytesIO(content)
    assert num_scans(file, MAX_SCANS) == scans
    assert file.tell() == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (jpeg(11_584, 300), "101 scans or more of 134,189,056 pixels, which would take minutes"),
        (jpeg(11_584, 300, frame=0xC0, components=3), "101 scans or more of 134,189,056 pixels"),
        (jpeg(11_584, 30), "30 scans or more of 134,189,056 pixels"),
        (jpeg(16, 101), "101 scans or more of 256 pixels"),
        (jpeg(16, 1, header=segment(0xFE, b"") * 10**6), "more than 10,000 segments"),
        (jpeg(16, 1, header=EXIF * 300_000), "more than 10,000 segments"),
        (jpeg(16, 2, header=b"\xff" * 4_000_000), "bytes of its header mean nothing"),
    ],
)
def test_a_jpeg_that_would_take_long_is_refused_at_once(content, reason):
    started = time.monotonic()
    with pytest.raises(ValueError, match=reason):
        decode(io.BytesIO(content), 32)
    assert decoder.size(io.BytesIO(content)) in ((0, 0), (11_584, 11_584), (16, 16))
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "content",
    [
        jpeg(16, MAX_SCANS),
        jpeg(2000, 20),
        jpeg(16, 1, header=segment(0xFE, b"a" * 60_000) * 200),
        jpeg(16, 1, header=b"\xff" * 100),
    ],
)
def test_an_odd_jpeg_that_takes_little_time_is_decoded(content):
    assert decode(io.BytesIO(content), 16).shape == (3, 16, 16)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_any_bytes_are_counted_or_refused(data):
    content = bytearray(photo(progressive=True))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=20)):
        content[place] = data.draw(st.sampled_from([0, 0xFF, 0xDA, 0xD8, 0xD9, 1]))
    try:
        assert 1 <= num_scans(io.BytesIO(content), MAX_SCANS) <= MAX_SCANS + 1
    except ValueError as error:
        assert "header" in str(error) or "segments" in str(error)
