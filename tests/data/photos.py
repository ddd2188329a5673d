"""Folders of small photos for the tests, and the images that `load` reads from them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import data

SIZE = 8


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
