"""A folder of photos: which files are read, and which part each image goes to."""

import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.photos import first_pixels, load, paint, write_parts, write_photos
from tests.data.test_formats import GOOD as PHOTOS


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
