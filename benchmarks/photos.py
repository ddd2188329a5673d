"""Measures how fast photos get from a folder into batches, and how much memory that takes.

The table compares the first pass with bare decoding, and the second one with copying memory.

python -m benchmarks.photos [number, 2000] [image_size, 224]   writes JPEG photos of 224 to 500 px and their cache into
a temporary folder in TMPDIR (100,000 photos take about 27 GB), and prints a Markdown table
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from pipeline import data
from pipeline.data.decoder import crop
from pipeline.data.parallel import map_blocks
from pipeline.params import RecipeParams
from pipeline.training import device
from pipeline.training.recipe import Recipe, load_splits

CLASSES, BATCH, AUGMENTED = 10, 256, 8  # the augmentation of the first 8 batches is timed
LEAST, MOST = 224, 500  # px a side
BARE = 10_000  # photos for the bare loop at most: more would not change its rate
AT_ONCE = 16  # photos in a block
MIB = 2**20


def write_photos(number: int) -> list[str]:
    """Writes photos of coloured patches with the noise of a sensor, and returns their paths."""
    for label in range(CLASSES):
        Path(f"photos/{label}").mkdir(parents=True)
    blocks = map_blocks(_write, range(number), AT_ONCE, title="writing photos")
    return [path for block in blocks for path in block]


def _write(numbers: Sequence[int]) -> list[str]:
    return [_write_one(number) for number in numbers]


def _write_one(number: int) -> str:
    draw = np.random.default_rng(number)
    width, height = (int(side) for side in draw.integers(LEAST, MOST + 1, 2))
    patches = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(patches.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = smooth + draw.normal(0, 6, (height, width, 1))
    path = f"photos/{number % CLASSES}/{number:06}.jpg"
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=85)
    return path


class Bare:
    """The least work of any reader of photos: open, decode and, if `size` (px) is not 0, scale. Keeps no pixels."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, paths: Sequence[str]) -> int:
        """Decodes the photos and returns their number."""
        for path in paths:
            with Image.open(path) as image:
                pixels = image.convert("RGB")
                np.asarray(crop(pixels, self.size) if self.size else pixels)
        return len(paths)


def decode_bare(paths: Sequence[str], size: int) -> "Cost":
    """The cost of `Bare` in the same number of processes as the pipeline uses."""
    return cost(lambda: sum(map_blocks(Bare(size), paths, AT_ONCE, title="bare decoding")))


@dataclass(frozen=True)
class Cost:
    """The cost of some work in seconds: clock time, and processor time, which depends less on other load."""

    clock: float
    processor: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.clock + other.clock, self.processor + other.processor)


def cost(work: Callable[[], object]) -> Cost:
    """The cost of `work`, including its worker processes."""
    clock, processor = time.perf_counter(), _processor_seconds()
    work()
    return Cost(time.perf_counter() - clock, _processor_seconds() - processor)


def _processor_seconds() -> float:
    return sum(os.times()[:4])  # user and system time of this process and of its ended children


def read_batches(split: data.Split) -> float:
    """MiB per second for reading shuffled batches of `split` from its memory map into new memory."""
    order, read = np.random.default_rng(0).permutation(len(split)), 0
    started = time.perf_counter()
    for start in range(0, len(order), BATCH):
        read += split.take(order[start : start + BATCH]).nbytes
    return read / MIB / (time.perf_counter() - started)


def copy_memory(split: data.Split) -> float:
    """MiB per second for copying a batch that is in memory already."""
    batch = split.take(np.arange(min(BATCH, len(split))))
    laps = max(1, split.nbytes // batch.nbytes)
    started = time.perf_counter()
    for _ in range(laps):
        batch.copy()
    return laps * batch.nbytes / MIB / (time.perf_counter() - started)


def augmented(params: RecipeParams, splits: data.Splits) -> float:
    """Photos that the recipe augments and normalises per second of processor time, on one thread."""
    torch.set_num_threads(1)
    batches = Recipe(params, splits, device.choose("cpu"), "fp32").train_batches(0)
    started, done = time.process_time(), 0
    for _, (images, _) in zip(range(AUGMENTED), batches.epoch(1), strict=False):
        done += len(images)
    return done / (time.process_time() - started)


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The largest increase of this process's memory inside the context, in MiB, without pages of files."""
    process, over, taken = psutil.Process(), threading.Event(), [0.0]

    def own() -> float:
        memory = process.memory_info()
        return float(memory.rss - memory.shared) / MIB

    def watch(before: float) -> None:
        while not over.wait(0.02):
            taken[0] = max(taken[0], own() - before)

    watching = threading.Thread(target=watch, args=(own(),))
    watching.start()
    try:
        yield taken
    finally:
        over.set()
        watching.join()


def row(what: str, value: float, unit: str, beside: str = "", peer: float = 0.0) -> None:
    """Prints a row of the table."""
    compared = f"{beside}: {peer:,.0f}" if peer else beside
    print(f"| {what} | {value:,.0f} {unit} | {compared} | {f'{value / peer:.2f}' if peer else ''} |", flush=True)


def main(number: int, image_size: int) -> None:
    """Measures, and prints the table."""
    device.choose("cpu")  # a training does this first: it decides how memory is kept, in workers too
    common = {"dataset": "folder", "data_dir": "photos", "image_size": image_size, "batch_size": 64, "device": "cpu"}
    params = RecipeParams(**common, crop_area=0.35)
    paths = write_photos(number)
    kept = image_size + 2 * params.margin
    weight = sum(Path(path).stat().st_size for path in paths) / number / 1024
    print(f"{number:,} photos of {LEAST} to {MOST} px, {weight:.0f} KiB each, kept at {kept} px; {torch.__version__}\n")
    print("| what | pipeline | beside | ratio |\n|---|---|---|---|")
    some = paths[:BARE]
    bare = decode_bare(some, kept)
    with peak_memory() as first:
        ours = cost(lambda: load_splits(params))
    bare += decode_bare(some, kept)
    beside = "decoded and scaled in a bare loop, before and after"
    row("first pass", number / ours.clock, "photos/s", beside, 2 * len(some) / bare.clock)
    row("the same, of processor time", number / ours.processor, "photos/s", beside, 2 * len(some) / bare.processor)
    row("first pass", number / ours.clock, "photos/s", "decoded only", len(some) / decode_bare(some, 0).clock)
    row("start from the cache", 1000 * cost(lambda: load_splits(params)).clock, "ms")
    splits = load_splits(params)
    train = splits.train.with_margin()
    with peak_memory() as second:
        reading = read_batches(train)
    row("second pass", reading, "MiB/s", "copies in memory", copy_memory(train))
    stored = number * 3 * kept**2 / MIB
    row("memory taken by the first pass", first[0], "MiB", f"stored: {stored:,.0f}")
    row("memory taken by the second", second[0], "MiB", f"stored: {stored:,.0f}")
    for augment in ("basic", "trivial", "rand"):
        recipe = RecipeParams(**common, crop_area=0.35, augment=augment)
        row(f"random resized crop, flip, augment={augment}", augmented(recipe, splits), "photos/s of a core")


if __name__ == "__main__":
    count, side = (int(given) for given in (sys.argv[1:] + ["2000", "224"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        os.chdir(folder)
        main(count, side)
