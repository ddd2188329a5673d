"""What a directory of class sub-folders holds, before any file is opened."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.data.cache import TEST, TRAIN, VALID
from pipeline.data.decode import SUFFIXES

PART_OF = {"train": TRAIN, "val": VALID, "valid": VALID, "validation": VALID, "test": TEST}


class ImageFile(NamedTuple):
    """A file that may be an image."""

    part: int
    path: str  # relative to the root, with "/"
    label: str
    stamp: tuple[int, int, int]  # size, and times of last change of content and of inode: no two versions share it


@dataclass
class Listing:
    """What a directory holds, before any file is opened."""

    files: list[ImageFile] = field(default_factory=list)
    train_folders: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def scan(root: Path) -> Listing:
    """The files below `root`, sorted by part and path; hidden, empty and other files are only counted."""
    if not root.is_dir():
        raise ValueError(f"data_dir={root} is not a folder: give one that holds a sub-folder per class")
    listing = Listing()
    for part, prefix in _part_folders(root):
        for entry in _entries(root / prefix, listing):
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if not entry.is_dir():
                listing.skipped["outside a class folder"] += 1
                continue
            if part == TRAIN:
                listing.train_folders.append(entry.name)
            _scan_class(root, path, part, entry.name, listing, seen=set())
    if not listing.files:
        raise ValueError(f"data_dir={root} has no images: expected <class>/<image> or train/<class>/<image> in it")
    listing.files.sort()
    return listing


def train_classes(files: Sequence[ImageFile], root: Path) -> list[str]:
    """The classes that `files` train, sorted; ValueError for fewer than two, or others in later parts."""
    classes = sorted({file.label for file in files if file.part == TRAIN})
    if stray := sorted({file.label for file in files} - {*classes}):
        raise ValueError(f"{root}: no usable train image of {', '.join(stray)}, found in test or validation only")
    if len(classes) < 2:
        raise ValueError(f"{root}: found one class ({classes[0]}); a classifier needs two or more")
    return classes


def _part_folders(root: Path) -> Iterator[tuple[int, str]]:
    """(part, its folder relative to `root`); a tree without train/ is all train."""
    present = {name: part for name, part in PART_OF.items() if _has_folders(root / name)}
    if not present:
        yield TRAIN, ""
        return
    if "train" not in present:
        raise ValueError(f"data_dir={root} has {'/, '.join(present)}/ but no train/ with a sub-folder per class")
    if len(valid := [name for name, part in present.items() if part == VALID]) > 1:
        raise ValueError(f"data_dir={root} has several validation sets ({', '.join(valid)}): leave one")
    for name, part in present.items():
        yield part, name


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(child.is_dir() and not child.name.startswith(".") for child in path.iterdir())


def _scan_class(root: Path, path: str, part: int, label: str, listing: Listing, seen: set[tuple[int, int]]) -> None:
    """Adds what is below the class folder `path`, each real directory once, so that link cycles end."""
    try:
        status = (root / path).stat()
    except OSError as error:
        listing.unreadable.append((path, str(error.strerror)))
        return
    if (identity := (status.st_dev, status.st_ino)) in seen:
        return
    seen.add(identity)
    for entry in _entries(root / path, listing):
        child = f"{path}/{entry.name}"
        if entry.is_dir():
            _scan_class(root, child, part, label, listing, seen)
        elif not entry.name.lower().endswith(SUFFIXES):
            listing.skipped["not an image"] += 1
        else:
            _add_file(entry, ImageFile(part, child, label, (0, 0, 0)), listing)


def _add_file(entry: os.DirEntry[str], file: ImageFile, listing: Listing) -> None:
    try:
        status = entry.stat()
    except OSError as error:  # a link to nowhere
        listing.unreadable.append((file.path, str(error.strerror)))
        return
    if not stat.S_ISREG(status.st_mode):
        listing.skipped["not an image"] += 1
    elif not status.st_size:
        listing.skipped["empty"] += 1
    else:
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        listing.files.append(file._replace(stamp=stamp))


def _entries(path: Path, listing: Listing) -> list[os.DirEntry[str]]:
    """What is in the folder `path` and not hidden, sorted by name."""
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        listing.unreadable.append((str(path), str(error.strerror)))
        return []
    visible = [entry for entry in found if not entry.name.startswith(".")]
    listing.skipped["hidden"] += len(found) - len(visible)
    return visible
