"""Repairs: files with complete pixels are read although other parts are broken. Files that lack pixels are left out."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.data.decoder import decode, sizes
from tests.data.test_hostile import chunk, picture

SIZE = 16
SIGNATURE = 8  # bytes of a PNG before its first chunk
HEADER = SIGNATURE + 25  # and with that chunk


def pixels(content: bytes) -> np.ndarray:
    return decode(BytesIO(content), SIZE)


def png_with(*chunks: bytes, end: bool = False) -> bytes:
    """A PNG of noise with additional `chunks`, before its pixels or at its end."""
    content = picture("PNG")
    place = len(content) - 12 if end else HEADER
    return content[:place] + b"".join(chunks) + content[place:]


def jpeg_with(marker: int, body: bytes) -> bytes:
    content = picture("JPEG")
    return content[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + content[2:]


MUCH = zlib.compress(bytes(2**21))
ICC = b"name\0\0" + MUCH
COMPRESSED_TEXT = b"comment\0\0" + MUCH
WRONG_SUM = chunk(b"tEXt", b"a\0b")[:-1] + b"?"


@pytest.mark.parametrize("end", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"zTXt", COMPRESSED_TEXT)],
        [chunk(b"iTXt", b"comment\0\1\0\0\0" + MUCH)],
        [chunk(b"tEXt", b"comment\0" + bytes(2**21))],
        [chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**20)))] * 70,
        [chunk(b"iCCP", ICC)],
        [chunk(b"iCCP", b"name")],
        [chunk(b"iCCP", b"name\0\7rubbish")],
        [chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nno hex")],
        [chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"rubbish"))],
        [chunk(b"zTXt", b"comment\0\7rubbish")],
        [chunk(b"eXIf", b"rubbish")],
        [chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff")],
        [chunk(b"gAMA", b"")],
        [chunk(b"cHRM", b"x")],
        [chunk(b"pHYs", b"x")],
        [chunk(b"sRGB", b"")],
        [WRONG_SUM],
        [WRONG_SUM, chunk(b"zTXt", COMPRESSED_TEXT), chunk(b"prVt", b"private")],
    ],
    ids=lambda chunks: f"{chunks[0][4:8].decode()} {len(chunks[0])} bytes x {len(chunks)}",
)
def test_a_png_is_read_whatever_its_metadata_hold(chunks: list[bytes], end: bool) -> None:
    assert np.array_equal(pixels(png_with(*chunks, end=end)), pixels(picture("PNG")))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16"])
def test_transparency_depth_and_orientation_survive_unreadable_metadata(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x112] = 6
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    image.save(file := BytesIO(), "PNG", exif=exif, **options)
    content = file.getvalue()
    assert np.array_equal(
        pixels(content[:HEADER] + chunk(b"zTXt", COMPRESSED_TEXT) + content[HEADER:]), pixels(content)
    )


def test_the_first_frame_of_an_animated_png_with_long_text_is_read() -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "lime")]
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2**21, zip=True)
    frames[0].save(file := BytesIO(), "PNG", save_all=True, append_images=frames[1:], pnginfo=text)
    assert pixels(file.getvalue())[:, 0, 0].tolist() == [255, 0, 0]


def webp_with(exif: bytes = b"", **options: Any) -> bytes:
    return picture("WEBP", exif=exif, xmp=b"<x/>" * 100, icc_profile=b"rubbish", **options)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"mode": "RGBA"}], ids=str)
def test_a_webp_is_read_whatever_its_metadata_hold(options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    content = webp_with(exif.tobytes(), **options)
    expected = pixels(content)
    place = content.index(b"XMP ") + 4
    for broken in (
        content[:-1],
        content[:-300],
        content[:place] + struct.pack("<I", 2**31) + content[place + 4 :],
        content[:4] + struct.pack("<I", len(content) + 1000) + content[8:],
        content + b"rubbish",
    ):
        assert np.array_equal(pixels(broken), expected)


def exif_entry(kind: int, tag: int = 0x112, number: int = 1, value: int = 6) -> bytes:
    """An EXIF block with one entry."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIII", 1, tag, kind, number, value << 16, 0)


ODD_EXIF = {
    "nothing": b"Exif\0\0",
    "one byte": b"Exif\0\0M",
    "text": b"Exif\0\0" + b"rubbish" * 1000,
    "no byte order": b"Exif\0\0XX\0*\0\0\0\x08\0\0",
    "order alone": b"Exif\0\0MM",
    "other magic": b"Exif\0\0MM\0+\0\0\0\x08\0\0",
    "offset far away": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "offset of the header": b"Exif\0\0MM\0*\0\0\0\0",
    "more entries than there are": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "the longest block": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(65_000),
    "cut within an entry": exif_entry(3)[:-7],
    "a kind that there is not": exif_entry(99),
    "orientation as text": exif_entry(2),
    "orientation as a fraction": exif_entry(5),
    "orientation without a value": exif_entry(3, number=0),
    "very many orientations": exif_entry(3, number=2**31),
    "orientation 9": exif_entry(3, value=9),
    "orientation 0": exif_entry(3, value=0),
    "a block that leads to itself": exif_entry(4, tag=0x8769, value=0),
    "a place that leads nowhere": exif_entry(4, tag=0x8825, value=2**15),
}


@pytest.mark.parametrize("exif", ODD_EXIF.values(), ids=ODD_EXIF.keys())
def test_odd_exif_does_not_turn_the_image(exif: bytes) -> None:
    assert np.array_equal(pixels(jpeg_with(0xE1, exif)), pixels(picture("JPEG")))
    assert np.array_equal(pixels(png_with(chunk(b"eXIf", exif[6:]))), pixels(picture("PNG")))
    assert np.array_equal(pixels(picture("WEBP", exif=exif)), pixels(picture("WEBP")))


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
@pytest.mark.parametrize(
    "body", [b"", b"JFIF\0", b"Adobe\0", b"ICC_PROFILE\0\1", b"MPF\0II*\0", b"Photoshop 3.0\0" + b"8BIM", b"x" * 65_000]
)
def test_a_jpeg_is_read_whatever_its_metadata_hold(marker: int, body: bytes) -> None:
    assert np.array_equal(pixels(jpeg_with(marker, body)), pixels(picture("JPEG")))


def test_a_jpeg_whose_metadata_cannot_be_read_keeps_its_colours_and_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    for mode in ("RGB", "CMYK", "L"):
        content = picture("JPEG", mode, exif=exif)
        assert np.array_equal(pixels(content[:2] + b"\xff\xe2\0\x0fICC_PROFILE\0\1" + content[2:]), pixels(content))


JPEGS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"quality": 95, "subsampling": 0},
    {"restart_marker_blocks": 1},
    {"restart_marker_rows": 1, "progressive": True},
    {"mode": "L"},
    {"mode": "CMYK", "progressive": True},
    {"exif": b"Exif\0\0\xff\xd8\xff\xd9"},
]
OTHERS: list[dict[str, Any]] = [
    {"kind": "PNG"},
    {"kind": "WEBP"},
    {"kind": "WEBP", "lossless": True, "xmp": b"<x/>"},
    {"kind": "BMP"},
    {"kind": "GIF"},
]


@pytest.mark.parametrize("options", JPEGS, ids=str)
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(options: dict[str, Any], cut: int) -> None:
    for seed in range(8):
        content = picture("JPEG", size=(50, 40), seed=seed, **options)
        assert np.array_equal(pixels(content[:-cut]), pixels(content))
        assert np.array_equal(pixels(content[:-2] + bytes(4096)), pixels(content))


@pytest.mark.parametrize("kind", ["half flat", "noise"])
@pytest.mark.parametrize(
    "options", [{"kind": "PNG"}, {"kind": "WEBP"}, {"kind": "BMP"}, {"kind": "GIF"}, *JPEGS], ids=str
)
def test_a_file_that_is_cut_anywhere_is_left_out_or_as_good_as_whole(options: dict[str, Any], kind: str) -> None:
    options = {"kind": "JPEG", "mode": "RGB", **options}
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    if kind == "half flat":
        noise[16:] = 120
    image, form = Image.fromarray(noise).convert(options.pop("mode")), options.pop("kind")
    image.save(file := BytesIO(), form, **options)
    whole = file.getvalue()
    num_read = 0
    for cut in {*range(1, 60), *range(60, len(whole), 17)}:
        fillings = (b"", bytes(512)) if "progressive" in options else (b"",)  # in other files, zeros are pixels
        for content in (whole[:-cut] + filling for filling in fillings):
            try:
                decoded = pixels(content)
            except ValueError:
                continue
            num_read += 1
            assert np.array_equal(decoded, pixels(whole)), cut
    assert num_read < 60


def test_the_size_of_a_repaired_file_is_known(tmp_path: Path) -> None:
    (tmp_path / "long.png").write_bytes(png_with(chunk(b"zTXt", COMPRESSED_TEXT)))
    (tmp_path / "short.jpg").write_bytes(jpeg_with(0xE0, b"JFIF\0"))
    assert sizes(tmp_path, ["long.png", "short.jpg"], progress=False).tolist() == [[24, 20]] * 2
