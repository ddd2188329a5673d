"""The cache of decoded images: a second start reads the same, and damage, kills and full disks do no harm."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import cache, folders
from tests.data.photos import SIZE, first_pixels, load, paint, write_parts


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
