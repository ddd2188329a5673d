"""A folder with 500 hostile files: it is read without a crash, in little memory, and each reason is reported."""

import contextlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipeline.data import tree
from pipeline.data.decoder import decode
from pipeline.text import shown
from tests.data import heics

SIZE = 8
BOMB_SIDE = 50_000
NAMES = [
    "two\nlines",
    "return\r",
    "tab\t",
    "'single'",
    '"double"',
    "back\\slash",
    "<script>alert(1)<script>",
    "<img src=x onerror=alert(1)>",
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-rf",
    "a,b;c",
    "$x_{",
    "%s {0}",
    "\x1b[31mred",
    "\u202egnp",
    "😀👩\u200d🔬",
    "ünï 犬",
    "x" * 251,
    "猫" * 83,
    " ",
    os.fsdecode(b"\xff\xfe"),
    os.fsdecode(b"\xff"),
]
NOT_AN_IMAGE = "not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"
LOAD = """
import json, resource, sys
from pathlib import Path
from pipeline import data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
splits = data.load("folder", data_dir=sys.argv[1], image_size=8, valid_fraction=0.1, limit_train=0, limit_test=0)
outcome = {
    "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before,
    "names": [*splits.train.names, *splits.valid.names, *splits.test.names],
    "classes": splits.classes,
    "left_out": splits.report.left_out,
    "skipped": splits.report.skipped,
}
Path(sys.argv[2]).write_text(json.dumps(outcome))
"""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def blank_png(side: int) -> bytes:
    """A complete black PNG with 1 bit per pixel. The file takes 0.01 % of the memory of its pixels."""
    rows, row = zlib.compressobj(9), bytes(1 + -(-side // 8))
    pixels = b"".join(rows.compress(row) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def picture(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 20), seed: int = 0, **options: Any) -> bytes:
    """An image file that shows noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def claiming(content: bytes, offset: int, layout: str) -> bytes:
    """`content` with the image size at `offset` replaced by the size of a decompression bomb."""
    size = struct.pack(layout, BOMB_SIDE, BOMB_SIDE)
    return content[:offset] + size + content[offset + len(size) :]


def honest() -> dict[str, bytes]:
    """The content of valid image files, by name."""
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000)
    deep.save(sixteen_bit := io.BytesIO(), "PNG")
    frames = [Image.new("RGB", (12, 12), colour) for colour in ("red", "lime", "blue")]
    moving = {"save_all": True, "append_images": frames[1:]}
    files = {f"{name}.png": picture("PNG", seed=seed) for seed, name in enumerate(NAMES)}
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        files |= {f"{kind}{seed}.{kind.lower()}": picture(kind, seed=seed) for seed in range(12)}
        files[f"pixel.{kind.lower()}"] = picture(kind, size=(1, 1))
        files[f"wrong_{kind}.jpg"] = picture(kind)
    for kind in ("PNG", "WEBP", "GIF", "TIFF", "AVIF", "MPO"):
        frames[0].save(file := io.BytesIO(), kind, **moving)
        files[f"moving.{kind.lower()}"] = file.getvalue()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"
    long_text = PngImagePlugin.PngInfo()
    long_text.add_text("comment", "x" * 2**23, zip=True)
    return files | {
        "16_bit.png": sixteen_bit.getvalue(),
        "cmyk.jpg": picture("JPEG", "CMYK"),
        "bilevel.png": picture("PNG", "1"),
        "palette.png": picture("PNG", "P"),
        "alpha.png": picture("PNG", "RGBA"),
        "progressive.jpg": picture("JPEG", progressive=True),
        "exif.jpg": picture("JPEG", exif=exif + bytes(65_000)),
        "exif.webp": picture("WEBP", exif=exif + bytes(3_000_000)),
        "long_text.png": picture("PNG", pnginfo=long_text),
        "plain.heic": heics.PLAIN,
        "no_end.jpg": picture("JPEG")[:-2],
        "exif_rubbish.jpg": picture("JPEG", exif=b"Exif\0\0" + b"rubbish" * 1000),
    }


def broken() -> dict[str, tuple[bytes, str]]:
    """Files that are not valid images, by name: their content and a part of the reason."""
    png, gif, bmp, jpeg = (picture(kind) for kind in ("PNG", "GIF", "BMP", "JPEG"))
    draw = np.random.default_rng(0)
    files = {
        "bomb.png": (blank_png(BOMB_SIDE), "bomb"),
        "small_bomb.png": (blank_png(12_000), "bomb"),  # Pillow only warns of this one
        "bomb.gif": (claiming(gif, 6, "<HH"), "bomb"),
        "bomb.bmp": (claiming(bmp, 18, "<ii"), "bomb"),
        "bomb.jpg": (claiming(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH"), "bomb"),
        "photo.png": (picture("PPM"), NOT_AN_IMAGE),
        "bomb.heic": (heics.PLAIN.replace(struct.pack(">II", 64, 64), struct.pack(">II", BOMB_SIDE, BOMB_SIDE)), ""),
        "page.jpg": (b"<html><script>alert(1)</script></html>", NOT_AN_IMAGE),
        "picture.gif": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NOT_AN_IMAGE),
    }
    files |= {f"{name}.jpg": (b"no image", NOT_AN_IMAGE) for name in NAMES}
    files |= {f"empty_{name[:60]}.png": (b"", "empty") for name in NAMES}
    files |= {f"cut_{cut}.heic": (heics.PLAIN[:cut], "") for cut in range(1, len(heics.PLAIN) - 1, 25)}
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        whole = picture(kind, size=(48, 40))
        cuts = draw.choice(np.arange(1, len(whole) * 9 // 10), 40, replace=False).tolist()
        files |= {f"cut_{cut}.{kind.lower()}": (whole[:cut], "") for cut in cuts}
    files |= {f"rubbish_{i}.png": (draw.bytes(200), NOT_AN_IMAGE) for i in range(80)}
    files |= {f"png_{i}.png": (png[:40] + draw.bytes(200), "") for i in range(40)}
    return files


def write_hostile(root: Path) -> None:
    """Writes all of these files: the images into `root`, the others into `root`/bad."""
    (root / "bad").mkdir()
    for name, content in honest().items():
        (root / name).write_bytes(content)
    for name, (content, _) in broken().items():
        (root / "bad" / name).write_bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes: "good" holds images; "bad" holds broken files, misleading links and a pipe."""
    root = tmp_path_factory.mktemp("hostile") / "images"
    for name in ("good", "bad/deep"):
        (root / name).mkdir(parents=True)
    for name, content in honest().items():
        (root / "good" / name).write_bytes(content)
    for name, (content, _) in broken().items():
        (root / "bad" / name).write_bytes(content)
    for number in range(10):
        (root / "bad/deep" / f"{number}.png").write_bytes(picture("PNG", seed=number))
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "photo.png").write_bytes(picture("PNG"))
    (root / "good/linked").symlink_to(outside)
    (root / "good/linked.png").symlink_to(outside / "photo.png")
    (root / "bad/nowhere.png").symlink_to("gone.png")
    (root / "bad/itself.png").symlink_to("itself.png")
    (root / "bad/itself").symlink_to("itself")
    (root / "bad/up").symlink_to(root)
    (root / "bad/deep/back").symlink_to(root / "bad")
    (root / "itself").symlink_to("itself")
    (root / "bad/zero.png").symlink_to("/dev/zero")
    os.mkfifo(root / "bad/pipe.jpg")
    return root


@pytest.fixture(scope="module")
def loaded(folder: Path) -> dict[str, Any]:
    """The results of loading the folder in a separate process."""
    outcome = folder.parent / "outcome.json"
    # A socket's path may be no longer than 108 bytes.
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder / "bad"):
        listening.bind("socket.png")
        done = subprocess.run(
            [sys.executable, "-c", LOAD, folder, outcome],
            env={**os.environ, "XDG_CACHE_HOME": str(folder.parent / "cache"), "PYTHONWARNINGS": "error"},
            cwd=Path(__file__).parent.parent.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return {**json.loads(outcome.read_text()), "stderr": done.stderr}


def test_every_image_is_read_under_a_printable_name(loaded: dict[str, Any]) -> None:
    links = ["linked/photo.png", "linked.png"]
    expected = {f"good/{shown(name)}" for name in [*honest(), *links]} | {f"bad/deep/{i}.png" for i in range(10)}
    assert {*loaded["names"]} == expected and len(loaded["names"]) == len(expected)
    assert loaded["classes"] == ["bad", "good"]


def test_every_other_file_is_named_with_its_reason(loaded: dict[str, Any]) -> None:
    reasons = dict(loaded["left_out"])
    expected = {f"bad/{shown(name)}": reason for name, (_, reason) in broken().items()} | {
        "bad/nowhere.png": "No such file",
        "bad/itself.png": "symbolic links",
        "bad/itself": "symbolic links",
        "itself": "symbolic links",
        "bad/up": "lies above",
        "bad/deep/back": "read already",
        "bad/zero.png": "device",
        "bad/pipe.jpg": "pipe",
        "bad/socket.png": "socket",
    }
    assert {*reasons} == {*expected}
    for name, reason in expected.items():
        assert reason in reasons[name], name
        assert reasons[name] and len(reasons[name].splitlines()) == 1
    assert loaded["skipped"] == {}
    assert len(reasons) + len(loaded["names"]) >= 500


def test_memory_stays_far_below_what_a_bomb_takes(loaded: dict[str, Any]) -> None:
    assert loaded["kilobytes"] < 300_000 < BOMB_SIDE**2 / 1000


def test_messages_of_decoding_libraries_are_not_printed(loaded: dict[str, Any]) -> None:
    lines = loaded["stderr"].splitlines()
    assert len(lines) == 11 and lines[-1].endswith("more files left out"), lines


def test_files_that_may_not_be_read_are_named(tmp_path: Path) -> None:
    for name in ("cat", "dog", "dog/locked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(picture("PNG"))
    (tmp_path / "cat/image.png").chmod(0)
    (tmp_path / "dog/locked").chmod(0)
    if os.access(tmp_path / "cat/image.png", os.R_OK):
        pytest.skip("root may read anything")
    try:
        assert tree.scan(tmp_path).left_out == [("dog/locked", "Permission denied")]
        with pytest.raises(ValueError, match="Permission denied"):
            decode(str(tmp_path / "cat/image.png"), SIZE)
    finally:
        (tmp_path / "dog/locked").chmod(0o700)


def test_a_folder_that_is_deeper_than_any_path_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").write_bytes(picture("PNG"))
    monkeypatch.chdir(tmp_path / "dog")
    for _ in range(2200):
        Path("d").mkdir()
        os.chdir("d")
    try:
        listing = tree.scan(tmp_path)
    finally:
        for _ in range(2200):  # pytest cannot remove such a deep folder
            os.chdir("..")
            Path("d").rmdir()
    assert len(listing.files) == 2
    ((_, reason),) = listing.left_out
    assert reason == "File name too long"


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photograph_of_a_hundred_megapixels_is_read(suffix: str, tmp_path: Path) -> None:
    Image.new("L", (11_648, 8_736), 100).save(tmp_path / f"photo.{suffix}")
    assert decode(str(tmp_path / f"photo.{suffix}"), SIZE)[:, 4, 4].tolist() == [100, 100, 100]


def test_a_file_too_long_for_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.webp"
    path.write_bytes(picture("WEBP"))
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match="more than 1,073,741,824 bytes"):
        decode(str(path), SIZE)
