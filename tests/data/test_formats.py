"""Formats of phones, scanners and cameras: photos show the right pixels, and costly files are refused early."""

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import decoder
from pipeline.data.decoder import decode
from pipeline.data.formats import NOT_AN_IMAGE, SUFFIXES
from tests.data import heics

ROOT = Path(__file__).parent.parent.parent
WIDTH, HEIGHT = 64, 48
RED, GREEN, BLUE, WHITE = (220, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240)


def drawn() -> Image.Image:
    """Four rectangles of 32 x 24 px, the same as in `heics`."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32], pixels[24:, 32:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def saved(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    (drawn() if image is None else image).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def turned_by_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif


def corners(content: bytes) -> list[tuple[int, ...]]:
    """The pixels near the corners: top left, top right, bottom left, bottom right."""
    shown = decode(io.BytesIO(content), 8, "squash").astype(int)
    return [tuple(shown[:, y, x].tolist()) for y in (1, 6) for x in (1, 6)]


def assert_shows(content: bytes, expected: list[tuple[int, ...]], within: int = 12) -> None:
    assert np.abs(np.array(corners(content)) - np.array(expected)).max() <= within


UPRIGHT, CLOCKWISE = [RED, GREEN, BLUE, WHITE], [BLUE, RED, WHITE, GREEN]


def several(kind: str, **options: Any) -> bytes:
    """A file with three pictures; the second and the third are black."""
    return saved(kind, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT)) for _ in "ab"], **options)


GOOD = {
    "plain.heic": (heics.PLAIN, UPRIGHT),
    "turned.heic": (heics.TURNED, CLOCKWISE),
    "clear.heic": (heics.CLEAR, [(255, 255, 255), GREEN, BLUE, WHITE]),
    "deep_grey.heic": (heics.DEEP_GREY, [(117, 117, 117)] * 4),
    "plain.avif": (saved("AVIF"), UPRIGHT),
    "turned.avif": (saved("AVIF", exif=turned_by_exif(6)), CLOCKWISE),
    "moving.avif": (several("AVIF"), UPRIGHT),
    "clear.avif": (saved("AVIF", Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 0))), [(255, 255, 255)] * 4),
    "several.mpo": (several("MPO"), UPRIGHT),
    "turned.mpo": (several("MPO", exif=turned_by_exif(6)), CLOCKWISE),
    "plain.tiff": (saved("TIFF"), UPRIGHT),
    "pages.tif": (several("TIFF"), UPRIGHT),
    "big.tif": (saved("TIFF", big_tiff=True), UPRIGHT),
    **{
        f"turned_{kind}.tif": (saved("TIFF", tiffinfo={274: 6}, compression=kind), CLOCKWISE)
        for kind in ("raw", "jpeg")
    },
    **{
        f"{kind}.tif": (saved("TIFF", compression=kind), UPRIGHT)
        for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd")
    },
    "cmyk.tif": (saved("TIFF", drawn().convert("CMYK")), UPRIGHT),
    "palette.tif": (saved("TIFF", drawn().quantize(8)), UPRIGHT),
    "clear.tif": (saved("TIFF", Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 0))), [(255, 255, 255)] * 4),
    "fax.tif": (saved("TIFF", Image.new("1", (WIDTH, HEIGHT), 1), compression="group4"), [(255, 255, 255)] * 4),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_shows_what_a_viewer_shows(name: str) -> None:
    content, expected = GOOD[name]
    assert_shows(content, expected)


@pytest.mark.parametrize("name", GOOD)
def test_the_size_of_a_file_is_that_of_the_shown_image(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(GOOD[name][0])
    turns = name.startswith("turned") and not name.endswith(".avif")  # the EXIF of an AVIF is read with its pixels
    expected = [HEIGHT, WIDTH] if turns else [WIDTH, HEIGHT]
    assert decoder.sizes(tmp_path, [name], progress=False).tolist() == [expected]
    assert decoder.size(io.BytesIO(GOOD[name][0])) == tuple(expected)
    assert Path(name).suffix in SUFFIXES


def tiff(order: str, tags: dict[int, int | tuple[int, int]], behind: bytes = b"") -> bytes:
    """A TIFF from its parts: a header, `behind` at byte 8, and a page with `tags`, each a number or (count, number)."""
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(behind))
    values = {tag: value if isinstance(value, tuple) else (1, value) for tag, value in tags.items()}
    page = [struct.pack(f"{order}HHII", tag, 4, *values[tag]) for tag in sorted(values)]
    return start + behind + struct.pack(f"{order}H", len(page)) + b"".join(page) + bytes(4)


def page(side: int = 8, bits: int = 8, **more: int) -> dict[int, int | tuple[int, int]]:
    """The tags of a grey page."""
    named = {"white": 262, "channels": 277, "signed": 339}
    tags: dict[int, int | tuple[int, int]] = {
        256: side,
        257: side,
        258: bits,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: side,
    }
    return {**tags, 279: side * side * bits // 8, **{named[name]: value for name, value in more.items()}}


@pytest.mark.parametrize(
    ("order", "white", "value", "expected"),
    [(order, 1, value, shown) for order in "<>" for value, shown in ((0, 0), (25_700, 100), (65_535, 255))]
    + [("<", 0, 65_535, 0), ("<", 0, 25_700, 155)],
)
def test_deep_grey_of_a_tiff_is_scaled(order: str, white: int, value: int, expected: int) -> None:
    content = tiff(order, page(bits=16, white=white), struct.pack(f"{order}64H", *[value] * 64))
    assert (decode(io.BytesIO(content), 8) == expected).all()


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (2048, 128), (4095, 255)])
def test_twelve_bits_of_grey_are_scaled(value: int, expected: int) -> None:
    pixels = bytes([value >> 4, (value & 15) << 4 | value >> 8, value & 255] * 32)
    assert np.abs(decode(io.BytesIO(tiff("<", page(bits=12), pixels)), 8).astype(int) - expected).max() <= 1


def test_sixteen_bits_of_colour_are_scaled() -> None:
    pixels = struct.pack("<192H", *[25_700, 51_400, 12_850] * 64)
    shown = decode(io.BytesIO(tiff("<", {**page(bits=16, white=2, channels=3), 279: len(pixels)}, pixels)), 8)
    assert np.abs(shown[:, 4, 4].astype(int) - (100, 200, 50)).max() <= 1


def box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, content)), kind) + b"".join(content)


def heic_of_parts(parts: dict[int, list[int]], side: int, brand: bytes = b"heic") -> bytes:
    """A HEIC with images 1, 2, ... `parts` lists the parts of an image; images without parts have `side` px."""
    number = max(each for made_of in parts.values() for each in made_of)
    references = [
        box(b"dimg", struct.pack(f">HH{len(made_of)}H", item, len(made_of), *made_of))
        for item, made_of in parts.items()
    ]
    sizes = box(b"ipco", box(b"ispe", struct.pack(">III", 0, side, side)))
    owners = b"".join(struct.pack(">HBB", item, 1, 0x81) for item in range(1, number + 1))
    owned = box(b"ipma", struct.pack(">II", 0, number), owners)
    inside = [box(b"pitm", struct.pack(">IH", 0, 1)), box(b"iref", bytes(4), *references), box(b"iprp", sizes, owned)]
    return box(b"ftyp", brand, bytes(4), b"mif1") + box(b"meta", bytes(4), *inside)


def claiming(content: bytes, width: int) -> bytes:
    """`content`, a HEIC or AVIF file, with all its images claiming to be `width` px wide and high."""
    place, size = 0, struct.pack(">II", width, width)
    while (place := content.find(b"ispe", place)) >= 0:
        content = content[: place + 8] + size + content[place + 16 :]
        place += 4
    return content


def overlapping_tags() -> bytes:
    """A TIFF of 64 kB with 2,000 tags. Each tag claims the same 60 kB as its value."""
    tags = {**page(), **dict.fromkeys(range(40000, 42000), (15000, 8))}
    return tiff("<", tags, bytes(64_000))


RAW = "a raw file of a camera"
REFUSED = {
    "bomb.heic": (claiming(heics.PLAIN, 20_000), "bomb|size signaled"),  # by the version of libheif
    "bomb.avif": (claiming(GOOD["plain.avif"][0], 60_000), "."),
    "bomb.tif": (tiff("<", page(60_000)), "bomb"),
    "hidden.heic": (claiming(heics.PLAIN, 2), "."),
    "many_uses.heic": (heic_of_parts({1: [2] * 1000}, 4000), "tiles of more than"),
    "many_uses.avif": (heic_of_parts({1: [2] * 1000}, 4000, b"avif"), "tiles of more than"),
    "uses_of_uses.heic": (heic_of_parts({n: [n + 1] * 100 for n in range(1, 6)}, 100), "tiles of more than"),
    "made_of_itself.heic": (heic_of_parts({1: [1]}, 8), "made of images"),
    "long_list.heic": (heics.PLAIN[:28] + struct.pack(">I", 2**30) + heics.PLAIN[32:], "a list of more than"),
    "large_tile.tif": (tiff("<", {**page(), 322: 60_000, 323: 60_000, 324: 8, 325: 64}), "larger than the image"),
    "many_strips.tif": (tiff("<", {**page(), 273: (2**24, 8)}, bytes(64)), "strips"),
    "floats.tif": (saved("TIFF", Image.new("F", (8, 8), 0.5)), "whose range is not known"),
    "signed.tif": (tiff("<", page(bits=16, signed=2), bytes(128)), "whose range is not known"),
    "preview.nef": (tiff("<", {**page(), 254: 1}, bytes(64)), RAW),
    "digital_negative.dng": (tiff(">", {**page(), 50706: 1}, bytes(64)), RAW),
    "canon.cr2": (tiff("<", page(), b"CR" + bytes(62)), RAW),
    "no_page.tif": (b"II*\0" + struct.pack("<I", 10_000), "a TIFF file whose header is broken or cut short"),
    "header_alone.heic": (heics.PLAIN[:28], "a HEIC or AVIF file whose header is broken or cut short"),
    "film.mp4": (box(b"ftyp", b"isom", bytes(4)) + bytes(100), NOT_AN_IMAGE),
    "film.mov": (box(b"ftyp", b"qt  ", bytes(4)) + bytes(100), NOT_AN_IMAGE),
    "raw.cr3": (box(b"ftyp", b"crx ", bytes(4)) + bytes(100), NOT_AN_IMAGE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_read_is_refused_in_one_line_with_a_reason(name: str) -> None:
    content, reason = REFUSED[name]
    with pytest.raises(ValueError, match=reason) as refusal:
        decode(io.BytesIO(content), 8)
    assert str(refusal.value).isprintable()


MEASURE = """
import resource, sys, time
from pathlib import Path
from pipeline.data.decoder import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        decode(path, 8)
    except ValueError:
        pass
    assert time.process_time() - start < 2, path
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, path
"""


def test_a_refusal_takes_little_time_and_memory(tmp_path: Path) -> None:
    for name, content in {
        **{name: content for name, (content, _) in REFUSED.items()},
        "tags": overlapping_tags(),
    }.items():
        (tmp_path / name).write_bytes(content)
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


HOLDS_MORE = ("pages.tif", "several.mpo", "turned.mpo")  # files with more pictures than the one that is read


@pytest.mark.parametrize("name", [name for name in GOOD if name not in HOLDS_MORE])
def test_a_file_cut_short_is_refused_with_a_reason(name: str) -> None:
    content, _ = GOOD[name]
    for cut in np.linspace(1, len(content) * 0.95, 25).astype(int).tolist():
        with pytest.raises(ValueError) as refusal:
            decode(io.BytesIO(content[:cut]), 8)
        assert str(refusal.value).isprintable() and "0x" not in str(refusal.value)


@pytest.mark.parametrize("name", HOLDS_MORE)
def test_the_first_picture_is_read_from_a_file_that_is_cut_after_it(name: str) -> None:
    content, expected = GOOD[name]
    assert_shows(content[:-20], expected)
    with pytest.raises(ValueError):
        decode(io.BytesIO(content[:200]), 8)


def test_a_photo_as_large_as_allowed_is_read_from_a_tiff(tmp_path: Path) -> None:
    Image.new("L", (11_648, 8_736), 100).save(tmp_path / "photo.tif", compression="tiff_adobe_deflate")
    assert decode(str(tmp_path / "photo.tif"), 8)[:, 4, 4].tolist() == [100, 100, 100]
