"""Folders of links to photos: some of them, or all of them divided as this project divides them."""

from collections import Counter
from pathlib import Path

import numpy as np

from pipeline import data
from pipeline.params import DataParams
from pipeline.text import original

LOOKED_AT = 32  # px, at which photos are read to divide them
PARTS = ("train", "val", "test")


def link_photos(root: Path, photos: Path, at_most: int) -> int:
    """Links `at_most` files of `photos`, evenly spaced, into class folders below `root`. Returns their number."""
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(at_most, len(files))).astype(int)]
    for number, file in enumerate(chosen):
        folder = root / file.parent.name
        folder.mkdir(exist_ok=True)
        (folder / f"{number:05}_{file.name}").symlink_to(file.resolve())  # train and test may have the same names
    return len(chosen)


def write_split(source: Path, root: Path, photos_per_class: int = 0) -> dict[str, Counter[str]]:
    """Links the photos of `source` into train, val and test below `root`, as this project divides them by default.

    Returns the number of photos by part and class. photos_per_class: the most photos of a class (0: all).
    """
    if photos_per_class:
        source = _few(source, root.with_name("few"), photos_per_class)
    fraction = DataParams.model_fields["valid_fraction"].default
    splits = data.load(
        "folder", data_dir=source, image_size=LOOKED_AT, valid_fraction=fraction, limit_train=0, limit_test=0
    )
    counts: dict[str, Counter[str]] = {}
    for part, split in zip(PARTS, (splits.train, splits.valid, splits.test), strict=True):
        assert split is not None
        counts[part] = Counter(splits.classes[label] for label in split.labels)
        for label, name in zip(split.labels, split.names, strict=True):
            file = source / original(name)
            folder = root / part / original(splits.classes[label])
            folder.mkdir(parents=True, exist_ok=True)
            (folder / file.name).symlink_to(file.resolve())
    return counts


def _few(source: Path, root: Path, photos_per_class: int) -> Path:
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (root / folder.name).mkdir(parents=True)
        for file in sorted(path for path in folder.iterdir() if path.is_file())[:photos_per_class]:
            (root / folder.name / file.name).symlink_to(file.resolve())
    return root
