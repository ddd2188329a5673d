"""Images are read and decoded by several processes, and the rows to come are fetched from the disk."""

import ctypes
import mmap
import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import cache, folders, quotas
from pipeline.data.decoder import decode
from pipeline.data.rows import Rows, prefetch
from tests.data.photos import SIZE, first_pixels, load, paint, write_parts, write_photos


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
