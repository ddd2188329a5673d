"""A .npy file of images that several processes fill at the same time: each writes its own blocks."""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

EXACT_SIDE = 258  # px of the longest row whose sum of squares float32 holds exactly: 258 * 255^2 < 2^24
WORTH_ASKING = 2**15  # bytes of an image from which `prefetch` saves time
SUMMED_AT_ONCE = 2**18  # pixels, few enough that as floats they fit into the processor's cache


@dataclass(frozen=True)
class Rows:
    """The place of the images; each worker gets a copy. Raises OSError if the disk refuses to write."""

    path: Path
    image_size: int

    def make(self, length: int) -> int:
        """Writes the header for `length` images, in a new file or over the old header. Returns its size in bytes."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (length, 3, self.image_size, self.image_size)}
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)  # has the same size for any length
            return file.tell()

    def put(self, images: np.ndarray, place: int) -> None:
        """Writes images (B, 3, S, S) uint8 from byte `place` on."""
        assert images.dtype == np.uint8 and images.shape[1:] == (3, self.image_size, self.image_size)
        with self.path.open("r+b") as file:
            # A write raises on a full disk. Assigning to a memory map would kill the process.
            file.seek(place)
            file.write(np.ascontiguousarray(images).data)

    def finish(self, blocks: list[tuple[int, int]]) -> None:
        """Closes the gaps between the `blocks`, (first byte, number of images) in order, and truncates the file."""
        place = self.make(sum(number for _, number in blocks))
        with self.path.open("r+b") as file:
            for start, number in blocks:
                size = number * 3 * self.image_size**2
                if start != place:
                    file.seek(start)
                    block = file.read(size)
                    file.seek(place)
                    file.write(block)
                place += size
            file.truncate(place)
            file.flush()
            os.fsync(file.fileno())


def prefetch(images: np.ndarray, rows: np.ndarray) -> None:
    """Requests all `rows` of `images`, a memory map of (N, 3, S, S) uint8, from the disk, and returns at once.

    Reading the rows one by one waits 30 times as long if the set is larger than memory. The function does nothing if
    `images` is not a memory map, or if the images are so small that the disk reads their neighbours anyway.
    """
    memory: object = images
    while isinstance(memory, np.ndarray):
        memory = memory.base
    size = images.strides[0]
    if not isinstance(memory, mmap.mmap) or size < WORTH_ASKING or not hasattr(mmap, "MADV_WILLNEED"):
        return
    first = images.ctypes.data - np.frombuffer(memory, dtype=np.uint8).ctypes.data
    for row in rows.tolist():
        start = first + row * size
        beyond = start % mmap.PAGESIZE
        memory.madvise(mmap.MADV_WILLNEED, start - beyond, size + beyond)


def moments(images: np.ndarray) -> np.ndarray:
    """Exact sum and sum of squares of each image's pixels per channel: (B, 3, S, S) uint8 -> (B, 2, 3) int64.

    Rows are summed in floats, and the sums of rows in integers. This takes a third of the time of integers only.
    """
    side = images.shape[-1]
    exact: type[np.floating] = np.float32 if side <= EXACT_SIDE else np.float64
    sums = np.empty((len(images), 2, 3), dtype=np.int64)
    at_once = max(1, SUMMED_AT_ONCE // (3 * side**2))
    ones = np.ones(side, dtype=exact)
    for start in range(0, len(images), at_once):
        rows = images[start : start + at_once].reshape(-1, side).astype(exact)
        for power, other in enumerate((ones, rows)):
            each = np.vecdot(rows, other)
            sums[start : start + at_once, power] = each.reshape(-1, 3, side).sum(axis=2, dtype=np.int64)
    return sums
