"""Images that need no download: noise in the size of CIFAR-10, as costly for a network as photos."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.splits import Report, Split, Splits

WRITTEN_AT_ONCE = 10_000  # images


def splits(num_images: int, num_classes: int = 10, size: int = 32, folder: Path | None = None) -> Splits:
    """`num_images` images of `size` px, used for both train and test. If `folder` is given, a file in it holds them."""
    draw = np.random.default_rng(0)
    shape = (num_images, 3, size, size)
    if folder is None:
        images = draw.integers(0, 256, shape, dtype=np.uint8)
    else:
        images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
        for start in range(0, num_images, WRITTEN_AT_ONCE):
            rest = images[start : start + WRITTEN_AT_ONCE]
            rest[:] = draw.integers(0, 256, rest.shape, dtype=np.uint8)
        images.flush()
    labels = np.arange(num_images, dtype=np.int64) % num_classes
    split = Split(images, np.arange(num_images), labels, [f"noise/{i}" for i in range(num_images)])
    return Splits(
        name="noise",
        classes=tuple(f"class {i}" for i in range(num_classes)),
        train=split,
        valid=None,
        test=split,
        digest="0" * 32,
        mean=(0.5, 0.5, 0.5),
        std=(0.29, 0.29, 0.29),
        flip=True,
        report=Report(),
        indices={"train": split.rows, "test": split.rows},
    )


def write_folder(root: Path, num_images: int) -> None:
    """Writes `num_images` JPEG files of 32 px into ten class folders."""
    draw = np.random.default_rng(0)
    for i in range(num_images):
        folder = root / f"class {i % 10}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
