"""Image sets: which files are read, how they are split, and that a second start reads the same from the cache."""

import ctypes
import gzip
import hashlib
import logging
import mmap
import os
import shutil
import struct
import tempfile
import time
import urllib.error
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pipeline import data
from pipeline.data import cache, folders, quotas
from pipeline.data.decoder import decode
from pipeline.data.division import hold_out, limit
from pipeline.data.rows import Rows, prefetch
from tests.data.test_formats import GOOD as PHOTOS

SIZE = 8
BMP_DIGEST, DIGITS_DIGEST = "7b4dc50ce6c81f641a7e41c7f33622d9", "a399727e0b23f87968a12b7de4138e41"


def load(root: Path, dataset: str = "folder", **settings: Any) -> data.Splits:
    defaults = {"image_size": SIZE, "valid_fraction": 0.0, "limit_train": 0, "limit_test": 0}
    return data.load(dataset, data_dir=root, **{**defaults, **settings})


def paint(path: Path, colour: Any = 0, mode: str = "RGB", size: tuple[int, int] = (SIZE, SIZE)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def write_photos(root: Path, count: int = 10, classes: tuple[str, ...] = ("cat", "dog"), start: int = 0) -> None:
    """Writes `count` PNG files per class, all different."""
    for label, name in enumerate(classes):
        for number in range(start, start + count):
            paint(root / name / f"{number:04}.png", (number, 100 * label, 7))


def write_parts(root: Path) -> None:
    write_photos(root / "train", 6)
    write_photos(root / "test", 3, start=100)


def first_pixels(split: data.Split) -> dict[str, tuple[int, ...]]:
    """The top left pixel of each image, by name."""
    images = split.take(np.arange(len(split)))
    return {name: tuple(image[:, 0, 0].tolist()) for name, image in zip(split.names, images, strict=True)}


# Reading a folder


def test_a_tree_with_parts_keeps_them(root: Path) -> None:
    write_parts(root)
    write_photos(root / "validation", 2, start=200)
    splits = load(root, valid_fraction=0.5)
    assert splits.name == "images" and splits.classes == ("cat", "dog") and splits.flip
    assert (len(splits.train), len(splits.valid or ()), len(splits.test)) == (12, 4, 6)
    assert first_pixels(splits.test)["test/dog/0101.png"] == (101, 100, 7)
    assert splits.test.labels.tolist() == [0] * 3 + [1] * 3 and splits.test.labels.dtype == np.int64
    assert {split: rows.tolist() for split, rows in splits.indices.items()} == {
        "train": [*range(12)],
        "valid": [*range(4)],
        "test": [*range(6)],
    }


def test_parts_are_recognised_by_their_names_in_any_case(root: Path) -> None:
    write_photos(root / "Training", 6)
    write_photos(root / "TEST", 3, start=100)
    splits = load(root)
    assert (splits.classes, len(splits.train), len(splits.test)) == (("cat", "dog"), 12, 6)
    assert first_pixels(splits.test)["TEST/dog/0101.png"] == (101, 100, 7)


def test_a_flat_tree_is_split_by_class(root: Path) -> None:
    write_photos(root, 20)
    splits = load(root, valid_fraction=0.25)
    assert splits.valid is not None
    for split, per_class in ((splits.train, 12), (splits.valid, 4), (splits.test, 4)):
        assert np.bincount(split.labels).tolist() == [per_class, per_class]
    names = [*splits.train.names, *splits.valid.names, *splits.test.names]
    assert len({*names}) == len(names) == 40


def test_without_a_test_part_some_train_images_become_the_test_split(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(root / "train", 10)
    with caplog.at_level(logging.INFO, logger="pipeline.data"):
        splits = load(root)
    assert (len(splits.train), splits.valid, len(splits.test)) == (16, None, 4)
    assert (
        "no test part: 20% of train, stratified, become the test split: 4 photos; 16 train, 0 validate" in caplog.text
    )


def test_a_validation_part_without_a_test_part_validates_or_on_request_tests(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(root / "train", 20)
    write_photos(root / "val", 5, start=100)
    with caplog.at_level(logging.INFO, logger="pipeline.data"):
        splits = load(root)
    assert (len(splits.train), len(splits.valid or ()), len(splits.test)) == (32, 10, 8)
    assert (
        "become the test split: 8 photos; 32 train, and its validation part, 10 photos, validates (valid_as_test=on"
        in caplog.text
    )
    with caplog.at_level(logging.INFO, logger="pipeline.data"):
        tested = load(root, valid_as_test=True, valid_fraction=0.25)
    assert (len(tested.train), len(tested.valid or ()), len(tested.test)) == (30, 10, 10)
    assert all(name.startswith("val/") for name in tested.test.names) and tested.digest != splits.digest
    assert (
        "its validation part, 10 photos, is the test split; of the train part, 30 train and 10 validate" in caplog.text
    )


@pytest.mark.parametrize(("parts", "reason"), [(("train", "test"), "has a test part"), (("train",), "no validation")])
def test_valid_as_test_is_refused_unless_there_is_a_validation_part_and_no_test_part(
    root: Path, parts: tuple[str, ...], reason: str
) -> None:
    for part in parts:
        write_photos(root / part, 4)
    with pytest.raises(ValueError, match=f"valid_as_test=on: .*{reason}"):
        load(root, valid_as_test=True)


def test_images_stay_on_disk_until_taken(root: Path) -> None:
    write_parts(root)
    train = load(root).train
    base: Any = train.source
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base).__name__ == "mmap"
    taken = train.take(np.array([3, 0, 3]))
    assert taken.shape == (3, 3, SIZE, SIZE) and taken.dtype == np.uint8
    assert taken[:, 0, 0, 0].tolist() == [3, 0, 3]
    taken[:] = 0  # a copy, which a tensor may share
    assert train.nbytes == train.take(np.arange(len(train))).nbytes
    with pytest.raises(ValueError):
        train.source[0] = 0


def test_mean_and_std_are_those_of_the_train_pixels(root: Path) -> None:
    write_photos(root, 20)
    splits = load(root, valid_fraction=0.2)
    pixels = splits.train.take(np.arange(len(splits.train))) / 255
    np.testing.assert_allclose(splits.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(splits.std[:2], pixels.std(axis=(0, 2, 3))[:2], rtol=1e-9)
    assert splits.std[2] == 1 / 255  # blue is constant


def test_files_that_are_no_images_are_counted_and_images_that_cannot_be_read_are_named(root: Path) -> None:
    write_parts(root)
    (root / "train/.ipynb_checkpoints").mkdir()
    write_photos(root / "train/cat/.thumbnails", 1)
    (root / "train/cat/.hidden.png").write_bytes(b"x")
    (root / "train/cat/notes.txt").write_text("two cats")
    (root / "train/dog/empty.jpg").touch()
    (root / "train/labels.csv").write_text("a,b")
    write_photos(root / "train/mlruns/0/artifacts", 1)
    write_photos(root / "train/cat/mlartifacts/0", 1)
    os.mkfifo(root / "train/dog/pipe.png")
    splits = load(root)
    assert splits.report.skipped == {
        "hidden": 3,
        "not an image": 1,
        "outside a class folder": 1,
        "MLflow's own": 2,
    }
    assert splits.report.left_out == [
        ("train/dog/empty.jpg", "empty"),
        ("train/dog/pipe.png", "a pipe, socket or device"),
    ]
    assert len(splits.train) == 12


def test_photos_in_formats_that_are_not_read_are_counted_by_format_in_a_message(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_parts(root)
    for name in ("cat/1.DNG", "2.dng", "dog/3.Nef", "dog/Thumbs.db"):
        (root / "train" / name).write_bytes(b"x")
    report = load(root).report
    assert report.skipped == {"not an image": 1} and report.left_out == []
    for line in ("2 .dng (not read: convert them to JPEG)", "1 .nef (not read: convert them to JPEG)"):
        assert line in caplog.text


@pytest.mark.parametrize("with_table", [False, True])
def test_photos_of_telephones_and_scanners_are_read_from_folders_and_tables(root: Path, with_table: bool) -> None:
    names = [f"{label}/{name}" for label in ("cat", "dog") for name in PHOTOS]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PHOTOS[Path(name).name][0])
    (root / "labels.csv").write_text("\n".join(["path,label", *(f"{name},{Path(name).parent}" for name in names)]))
    splits = load(root, labels="labels.csv" if with_table else "")
    assert sorted([*splits.train.names, *splits.test.names]) == sorted(names)
    assert splits.report.left_out == [] and splits.report.unread == {}


def test_broken_files_are_named_and_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parts(root)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = root / "train/cat/whole.jpg"
    Image.fromarray(noise).save(whole)
    whole.with_name("broken.jpg").write_bytes(whole.read_bytes()[:1500])
    whole.with_name("text.jpg").write_text("not a picture")
    whole.with_name("gone.png").symlink_to("nowhere.png")
    for start in range(2):  # decoding, then the cache
        caplog.clear()
        splits = load(root)
        errors = dict(splits.report.left_out)
        assert {*errors} == {f"train/cat/{name}" for name in ("broken.jpg", "text.jpg", "gone.png")}, start
        assert "truncated" in errors["train/cat/broken.jpg"]
        assert errors["train/cat/text.jpg"] == "not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"
        assert all(name in caplog.text for name in errors)
        assert len(splits.train) == 13 and "train/cat/whole.jpg" in splits.train.names
        assert first_pixels(splits.train)["train/dog/0003.png"] == (3, 100, 7)  # labels did not shift


def test_a_decompression_bomb_is_left_out(root: Path) -> None:
    write_parts(root)
    bomb = root / "train/cat/bomb.png"
    content = bytearray((root / "train/cat/0000.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    chunk = bytes(content[12:29])
    content[29:33] = struct.pack(">I", zlib.crc32(chunk))
    bomb.write_bytes(content)
    splits = load(root)
    assert len(splits.train) == 12
    assert "decompression bomb" in dict(splits.report.left_out)["train/cat/bomb.png"]


def test_names_in_any_script_and_with_bytes_that_are_no_text_are_kept(root: Path) -> None:
    write_photos(root / "train", 2, ("кошка", "犬"))
    write_photos(root / "test", 1, ("кошка", "犬"))
    paint(root / "train/犬" / os.fsdecode(b"\xff.png"), (9, 9, 9))
    for _ in range(2):
        splits = load(root)
        assert splits.classes == ("кошка", "犬")
        assert first_pixels(splits.train)[r"train/犬/\udcff.png"] == (9, 9, 9)


def test_link_cycles_end_and_linked_folders_are_read(root: Path, tmp_path: Path) -> None:
    write_photos(root, 10, ("cat",))
    write_photos(tmp_path / "elsewhere", 10, ("dog",))
    (root / "dog").symlink_to(tmp_path / "elsewhere/dog")
    (root / "cat/self").symlink_to(root / "cat")
    (root / "cat/up").symlink_to(root)
    splits = load(root)
    assert splits.classes == ("cat", "dog")
    assert sum("cat/0" in name for name in (*splits.train.names, *splits.test.names)) == 10


def test_a_class_without_images_is_ignored_with_a_message(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parts(root)
    (root / "train/bird").mkdir()
    assert load(root).classes == ("cat", "dog")
    assert "class bird has no usable train image" in caplog.text


# Folders that cannot be trained on


def _missing(root: Path) -> None: ...


def _empty(root: Path) -> None:
    root.mkdir()


def _raw_photos(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.cr3").write_bytes(b"x")


def _one_class(root: Path) -> None:
    write_photos(root, 4, ("cat",))


def _stray_class(root: Path) -> None:
    write_parts(root)
    write_photos(root / "test", 1, ("fox",))


def _no_train(root: Path) -> None:
    write_photos(root / "test", 2)


def _two_validations(root: Path) -> None:
    write_parts(root)
    write_photos(root / "val", 1)
    write_photos(root / "valid", 1)


def _all_broken(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_text("nothing")


def _class_broken_in_train(root: Path) -> None:
    write_parts(root)
    write_photos(root / "test", 1, ("fox",))
    (root / "train/fox").mkdir()
    (root / "train/fox/1.png").write_text("nothing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "data_dir=.*images is not a folder"),
        (_empty, "data_dir=.*images has no images"),
        (_raw_photos, r"images has no images but 2 \.cr3 \(not read: convert them to JPEG\)$"),
        (_one_class, r"one class \(cat\)"),
        (_stray_class, "no usable train image of fox"),
        (_no_train, "has test/ but no train/"),
        (_two_validations, "has val/ and valid/, which mean the same"),
        (_all_broken, "none of its 2 files is a readable image"),
        (_class_broken_in_train, "no usable train image of fox"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_in_one_line(
    make: Callable[[Path], None], message: str, root: Path, cache_home: Path
) -> None:
    make(root)
    with pytest.raises(ValueError, match=message) as refusal:
        load(root)
    assert "\n" not in str(refusal.value)
    assert not cache_home.exists() or not [*cache_home.iterdir()]


# Splits


def test_every_run_gets_the_same_splits_and_a_limit_takes_a_part_of_them(root: Path) -> None:
    write_photos(root, 50)
    torch.manual_seed(1)
    one = load(root, valid_fraction=0.1, limit_train=40)
    torch.manual_seed(2)
    two = load(root, valid_fraction=0.1, limit_train=40)
    assert one.digest == two.digest and one.valid and two.valid and one.valid.names == two.valid.names
    whole = load(root)
    assert {*one.train.names, *one.valid.names} < {*whole.train.names}
    assert np.bincount(one.train.labels).tolist() == [18, 18]
    assert load(root, limit_test=6).test.labels.tolist() == [0] * 3 + [1] * 3
    assert len(load(root, limit_train=10_000).train) == len(whole.train)


def test_the_digest_depends_on_pixels_image_size_limits_and_validation(root: Path) -> None:
    write_photos(root, 20)
    digests = [
        load(root).digest,
        load(root, image_size=9).digest,
        load(root, limit_train=20).digest,
        load(root, valid_fraction=0.5).digest,
    ]
    paint(root / "cat/0000.png", (255, 255, 255))
    digests.append(load(root).digest)
    assert len({*digests}) == 5 and {len(digest) for digest in digests} == {32}


def test_a_file_that_could_not_be_opened_is_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    write_photos(root)
    with monkeypatch.context() as patch:
        patch.setattr(folders.hashlib, "file_digest", broken)
        without = load(root).digest
    assert load(root).digest != without


@pytest.mark.parametrize("worth_workers", [1, 1000])
def test_a_file_that_disappears_during_decoding_is_an_error_and_is_read_by_the_next_start(
    root: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch, worth_workers: int
) -> None:
    def away(path: str, *_: Any) -> np.ndarray:
        return decode(path.replace("cat/0003", "cat/away"), SIZE)

    write_photos(root)
    monkeypatch.setattr(folders, "WORTH_WORKERS", worth_workers)
    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match=r"0003.png can no longer be read \(No such"),
    ):
        patch.setattr(folders, "decode", away)
        load(root)
    assert not [*cache_home.iterdir()]
    assert load(root).report.left_out == []


def test_a_folder_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(ValueError, match="data_dir=~nobody-of-that-name/photos is not a folder"):
        load(Path("~nobody-of-that-name/photos"))


def test_images_keep_the_digest_of_earlier_versions_unless_new_settings_are_given(root: Path) -> None:
    for number in range(12):
        paint(root / ("cat", "dog")[number % 2] / f"{number:02}.bmp", (number, 20, 7))
    assert load(root, valid_fraction=0.25).digest == BMP_DIGEST
    assert load(root, "digits", valid_fraction=0.1).digest == DIGITS_DIGEST
    others = [
        {"resize": "squash"},
        {"resize": "pad"},
        {"interpolation": "bilinear"},
        {"margin": 1},
        {"image_size": SIZE + 2},
    ]
    digests = {load(root, valid_fraction=0.25, **each).digest for each in others}
    assert len(digests) == 5 and BMP_DIGEST not in digests


@pytest.mark.parametrize("dataset", ["folder", "digits"])
def test_the_cache_holds_the_images_of_each_interpolation(root: Path, dataset: str) -> None:
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        path = root / ("cat", "dog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
    asked = ["bicubic", "bilinear"] * 2
    taken = [load(root, dataset, image_size=12, interpolation=each) for each in asked]
    pixels = [each.train.take(np.arange(len(each.train))) for each in taken]
    assert np.array_equal(pixels[0], pixels[2]) and np.array_equal(pixels[1], pixels[3])
    assert not np.array_equal(pixels[0], pixels[1]) and taken[0].digest != taken[1].digest


def test_a_split_takes_the_centre_and_on_request_its_margin(root: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(4):
            pixels = np.full((SIZE + 4, SIZE + 4, 3), 200, dtype=np.uint8)
            pixels[2:-2, 2:-2] = number
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    train = load(root, margin=2).train
    centre, whole = (split.take(np.arange(len(train))) for split in (train, train.with_margin()))
    assert centre.shape[1:] == (3, SIZE, SIZE) and centre.max() < 4
    assert whole.shape[1:] == (3, SIZE + 4, SIZE + 4) and (whole[:, :, :2] == 200).all()
    assert np.array_equal(whole[:, :, 2:-2, 2:-2], centre)
    assert (train.nbytes, train.with_margin().nbytes) == (centre.nbytes, whole.nbytes)


@pytest.mark.parametrize("side", [7, 258, 259])
def test_moments_are_exact_even_for_white_images(side: int, cache_home: Path) -> None:
    images = np.full((2, 3, side, side), 255, dtype=np.uint8)
    images[1] = np.random.default_rng(0).integers(0, 256, images[1].shape)
    fields = {"labels": [0, 0], "parts": [0, 0], "names": ["a", "b"], "classes": ["x"], "digest": "d", "corrupt": []}
    with cache.Writer("key", side) as writer:
        writer.append(images)
        moments = writer.commit(fields).moments
    pixels = images.astype(np.int64)
    assert np.array_equal(moments, np.stack([pixels.sum((2, 3)), (pixels**2).sum((2, 3))], 1))


def test_prefetch_reads_the_requested_rows_from_the_disk_and_few_others() -> None:
    # Temporary folders may lie in memory; this one is meant to outlive a restart.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        _prefetch_rows(Path(folder))


def _prefetch_rows(tmp_path: Path) -> None:
    side, number = 128, 400
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (number, 3, side, side), dtype=np.uint8))
    images = np.asarray(np.load(tmp_path / "images.npy", mmap_mode="r"))
    with (tmp_path / "images.npy").open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if resident(images).any():
        pytest.skip("this disk is memory itself")
    asked = np.array([7, 300, 150])
    prefetch(images, asked)
    deadline = time.monotonic() + 10
    while not resident(images)[asked].all() and time.monotonic() < deadline:
        time.sleep(0.01)
    there = np.flatnonzero(resident(images))
    assert {*asked} <= {*there} and len(there) < number / 4


def resident(images: np.ndarray) -> np.ndarray:
    """(N,) bool: whether each of `images`, a memory map, is in memory. Checks the page in the middle of the image."""
    libc, pages = ctypes.CDLL(None, use_errno=True), np.zeros(1, dtype=np.uint8)
    there = []
    for image in images:
        middle = (image.ctypes.data + image.nbytes // 2) // mmap.PAGESIZE * mmap.PAGESIZE
        found = libc.mincore(ctypes.c_void_p(middle), ctypes.c_size_t(1), ctypes.c_void_p(pages.ctypes.data))
        assert found == 0, os.strerror(ctypes.get_errno())
        there.append(bool(pages[0] & 1))
    return np.array(there)


def test_loading_leaves_the_global_random_state_alone(root: Path) -> None:
    write_parts(root)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(root)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.8])
def test_holding_out_keeps_every_class_in_train(fraction: float) -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 2, 100, 40])
    rows = np.arange(len(labels))
    stay, held = hold_out(rows, labels, fraction, "valid")
    assert {*labels[stay]} == {0, 1, 2, 3}
    assert sorted([*stay, *held]) == rows.tolist()
    assert len(held) == round(fraction * len(labels))
    assert abs((labels[held] == 2).sum() - fraction * 100) <= 2


def test_limits_keep_every_class_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [1, 100, 899])
    taken = limit(np.arange(1000), labels, 100, 3, "limit_train")
    assert len(taken) == 100 and (np.diff(taken) > 0).all()
    assert np.abs(np.bincount(labels[taken]) - [1, 10, 89]).max() <= 1
    assert np.bincount(labels[limit(np.arange(1000), labels, 3, 3, "limit_train")]).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "imagenet"}, "dataset=imagenet is not known: use one of digits, .*folder"),
        ({"valid_fraction": 1.0}, "valid_fraction=1 must be at least 0 and less than 1"),
        ({"valid_fraction": 0.95}, "valid_fraction=0.95 takes so many of 12 train images"),
        ({"limit_train": 1}, "limit_train=1 is less than the 2 classes"),
        ({"limit_test": 1}, "limit_test=1 is less than the 2 classes"),
        ({"limit_test": -1}, "at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str, root: Path) -> None:
    write_parts(root)
    with pytest.raises(ValueError, match=message):
        load(root, **settings)


# The cache


def test_a_second_start_opens_no_image(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(root)
    first = load(root)
    monkeypatch.setattr(folders, "_hash_file", pytest.fail)
    monkeypatch.setattr(folders, "decode", pytest.fail)
    second = load(root)
    assert second.digest == first.digest and second.train.names == first.train.names
    assert first_pixels(second.train) == first_pixels(first.train)


def test_a_copy_of_the_folder_is_not_decoded_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(root)
    first = load(root)
    shutil.copytree(root, tmp_path / "copy")
    monkeypatch.setattr(folders, "decode", pytest.fail)
    assert load(tmp_path / "copy").digest == first.digest


def test_a_changed_file_of_the_same_size_and_age_is_seen(root: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(3):
            paint(root / "train" / name / f"{number}.bmp")
            paint(root / "test" / name / f"{number}.bmp")
    load(root)
    changed = root / "train/cat/0.bmp"
    before = changed.stat()
    paint(changed, (1, 2, 3))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    assert first_pixels(load(root).train)["train/cat/0.bmp"] == (1, 2, 3)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["images.npy", "moments.npy", "set.json"])
@pytest.mark.parametrize("damage", [_truncate, lambda path: path.write_bytes(b""), Path.unlink])
def test_a_damaged_cache_entry_is_decoded_again(
    name: str, damage: Callable[[Path], None], root: Path, cache_home: Path
) -> None:
    write_parts(root)
    first = load(root)
    expected = first_pixels(first.train)
    (entry,) = (path for path in cache_home.iterdir() if path.is_dir())
    damage(entry / name)
    again = load(root)
    assert again.digest == first.digest and first_pixels(again.train) == expected
    assert cache.find(entry.name) is not None
    assert not [*cache_home.glob("making-*")]


def test_two_starts_at_once_share_one_entry(cache_home: Path) -> None:
    fields = {"labels": [0], "parts": [0], "names": ["a"], "classes": ["x"], "digest": "d", "corrupt": []}
    image = np.ones((1, 3, SIZE, SIZE), dtype=np.uint8)
    with cache.Writer("key", SIZE) as early, cache.Writer("key", SIZE) as late:
        early.append(image)
        late.append(image)
        first, second = early.commit(fields), late.commit(fields)
    assert np.array_equal(first.images, second.images)
    assert [path.name for path in cache_home.iterdir()] == ["key"]


def test_an_interrupted_start_leaves_nothing_in_the_cache(
    root: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    write_parts(root)
    monkeypatch.setattr(folders, "decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(root)
    assert not [*cache_home.iterdir()]


def test_entries_of_a_killed_start_are_removed_and_entries_under_way_are_kept(root: Path, cache_home: Path) -> None:
    write_parts(root)
    for name, age in (("making-killed", 2 * cache.ABANDONED_SECONDS), ("making-under-way", 60)):
        (cache_home / name).mkdir(parents=True)
        (cache_home / name / "images.npy").write_bytes(b"half")
        for path in (cache_home / name / "images.npy", cache_home / name):
            os.utime(path, (time.time() - age,) * 2)
    load(root)
    assert [path.name for path in cache_home.glob("making-*")] == ["making-under-way"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line_and_leaves_nothing(root: Path, cache_home: Path) -> None:
    with pytest.raises(ValueError, match=r"No space left.*XDG_CACHE_HOME"), cache.Writer("key", SIZE) as writer:
        writer.rows = replace(writer.rows, path=Path("/dev/full"))
        writer.append(np.ones((1, 3, SIZE, SIZE), dtype=np.uint8))
    assert not [*cache_home.iterdir()]


def test_a_cache_that_cannot_be_written_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(root)
    blocked = root.parent / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.raises(ValueError, match=r"cannot store decoded images .*XDG_CACHE_HOME"):
        load(root)


@pytest.mark.parametrize("side", [SIZE, 420])
def test_a_few_large_photos_keep_every_core_busy_and_small_images_start_no_worker(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    def noted(path: str, *scaling: Any) -> np.ndarray:
        (tmp_path / f"{os.getpid()}.process").touch()
        return decode(path, *scaling)

    for number in range(64):
        paint(root / ("cat", "dog")[number % 2] / f"{number}.bmp", (number, 0, 7), size=(side, side))
    monkeypatch.setattr(folders, "decode", noted)
    load(root)
    processes = {int(path.stem) for path in tmp_path.glob("*.process")}
    if side == SIZE:
        assert processes == {os.getpid()}
    else:
        assert os.getpid() not in processes and len(processes) == min(4, quotas.cores())


def test_workers_decode_the_same_images_as_one_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(root)
    for name in ("train/cat/0000", "train/cat/0002", "train/cat/0005", "train/dog/0003"):  # first, within, a block
        (root / f"{name}.png").write_text("broken")
    alone = load(root)
    shutil.rmtree(cache.folder())
    monkeypatch.setattr(folders, "WORTH_WORKERS", 1)
    monkeypatch.setattr(folders, "BLOCK_BYTES", 4 * 3 * SIZE**2)
    together = load(root)
    assert together.digest == alone.digest and together.report == alone.report
    assert first_pixels(together.train) == first_pixels(alone.train)
    assert {name.removeprefix("train/"): pixel for name, pixel in first_pixels(together.train).items()} == {
        f"{name}/{number:04}.png": (number, 100 * label, 7)
        for label, (name, broken) in enumerate((("cat", {0, 2, 5}), ("dog", {3})))
        for number in {*range(6)} - broken
    }
    assert together.train.source.shape == (14, 3, SIZE, SIZE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_for_a_worker_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(root)
    monkeypatch.setattr(folders, "WORTH_WORKERS", 1)
    put = Rows.put
    monkeypatch.setattr(Rows, "put", lambda rows, *block: put(replace(rows, path=Path("/dev/full")), *block))
    with pytest.raises(ValueError, match=r"cannot store decoded images .*No space left.*XDG_CACHE_HOME"):
        load(root)
    assert not [*cache.folder().iterdir()]


# Named sets


def test_digits_need_no_files(tmp_path: Path) -> None:
    splits = load(tmp_path, "digits", image_size=32, valid_fraction=0.1)
    assert (len(splits.train), len(splits.valid or ()), len(splits.test)) == (1294, 144, 359)
    assert splits.classes == tuple("0123456789") and not splits.flip
    image = splits.train.take(np.arange(100))
    assert image.shape == (100, 3, 32, 32) and image.min() == 0 and image.max() > 250
    assert splits.train.names[0].startswith("train/")
    small = load(tmp_path, "digits")
    assert {*np.unique(small.train.take(np.arange(500)))} == {round(level * 255 / 16) for level in range(17)}


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A data_dir with the files that torchvision reads, which hold 40 train and 20 test images."""
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 40), ("t10k", 20)):
        images = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())
    return tmp_path / "data"


def test_a_torchvision_set_on_this_disk_is_read_once_and_then_comes_from_the_cache(mnist: Path) -> None:
    first = load(mnist, "mnist", image_size=32)
    assert (len(first.train), len(first.test)) == (40, 20) and not first.flip
    assert first_pixels(first.test)["test/13"] == (13, 13, 13)
    assert first.test.labels.tolist() == [number % 10 for number in range(20)]
    shutil.rmtree(mnist)
    second = load(mnist, "mnist", image_size=32)
    assert second.digest == first.digest and first_pixels(second.train) == first_pixels(first.train)


@pytest.mark.slow
def test_two_first_starts_fetch_a_set_once(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = {f"{raw.name}.gz": gzip.compress(raw.read_bytes()) for raw in (mnist / "MNIST/raw").iterdir()}
    asked: list[str] = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.lstrip("/"))
            content = archives[asked[-1]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(ConnectionError):  # torchvision first looks where an address leads, and reads nothing
                self.wfile.write(content[:20])
                time.sleep(0.1)
                self.wfile.write(content[20:])

        def log_message(self, *_: Any) -> None: ...

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sums = [(name, hashlib.md5(content).hexdigest()) for name, content in archives.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server, ThreadPoolExecutor(3) as pool:
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        pool.submit(server.serve_forever)
        alone = load(tmp_path / "alone", "mnist")
        asked_alone = sorted(asked)
        asked.clear()
        shutil.rmtree(cache.folder())
        both = pool.map(lambda _: load(tmp_path / "both", "mnist"), range(2))
        assert {each.digest for each in both} == {alone.digest}
        server.shutdown()
    assert {*asked_alone} == {*archives} and sorted(asked) == asked_alone


@pytest.mark.parametrize(
    ("name", "archive"),
    [("cifar10", "cifar-10-python.tar.gz"), ("mnist", "MNIST/raw"), ("svhn", "train_32x32.mat")],
)
def test_without_a_network_one_line_says_what_to_do(
    name: str, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", closed)
    with pytest.raises(ValueError, match="network is unreachable") as refusal:
        load(tmp_path, name)
    message = str(refusal.value)
    assert f"put {archive}" in message and str(tmp_path) in message and "\n" not in message
    assert "dataset=digits" in message and "dataset=folder" in message


def test_an_archive_with_another_checksum_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", closed)
    monkeypatch.setattr("tarfile.open", pytest.fail)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"anything")
    with pytest.raises(ValueError, match="cannot be fetched"):
        load(tmp_path, "cifar10")
