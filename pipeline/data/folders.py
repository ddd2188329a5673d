"""Decodes a directory of class sub-folders, or the files that a table lists, once, and keeps them in the cache."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.data import cache
from pipeline.data.cache import Block, Decoded, put
from pipeline.data.decoder import DiskError, Scaling, decode
from pipeline.data.label_table import read_labels
from pipeline.data.parallel import WORTH_WORKERS, map_blocks
from pipeline.data.rows import Rows
from pipeline.data.tree import ImageFile, Listing, scan, train_classes
from pipeline.text import shown

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**21  # bytes of pixels that one worker writes at a time
FILES_HASHED_AT_ONCE = 256
FILES_IN_A_BLOCK = 16  # small, because photos take long to decode: a few files should keep every core busy
PHOTOS_WORTH_WORKERS = 4 * FILES_IN_A_BLOCK
PHOTOS_BYTES = 2**25  # of all files; below, so few files decode faster than workers start
NUM_BLOCKS = 64  # fewest blocks if there are enough files, so that all cores finish at about the same time


def read(
    root: Path,
    image_size: int,
    *,
    labels: str = "",
    resize: str = "crop",
    interpolation: str = "bicubic",
    progress: bool = True,
) -> tuple[Decoded, Listing]:
    """The images below `root`, scaled to `image_size` px, and the listing of the folder.

    `root` holds train/, and optionally test/ and val/ (or other names that `part_folders` knows), each with a folder
    per class. Or it holds the class folders themselves, or the files that the CSV file `labels` lists (see
    `read_labels`). The train images define the classes, sorted by name. `resize`, a key of `RESIZES`, makes images
    square; `interpolation` is one of `INTERPOLATIONS`. Unreadable files are left out and listed in `corrupt`. Names
    are as `shown` writes them. Raises ValueError if the folder cannot be trained on.
    """
    listing = list_images(root, labels)
    # Newer options enter the key only if they are used, so that existing cache entries stay valid.
    scaling, usual = Scaling(image_size, resize, interpolation), Scaling(image_size)
    chosen = [given for given, default in zip(scaling, usual, strict=True) if given != default]
    used = [*chosen, *sorted(listing.groups.items())]
    manifest = _hash(cache.VERSION, image_size, *listing.files, *used)
    decoded = cache.recall(manifest)
    if decoded is None:
        digest, opened = _content_digest(root, listing.files, progress)
        digest = _hash(digest, *used) if used else digest
        key = _hash(cache.VERSION, image_size, digest)
        decoded = cache.find(key) or _decode(root, listing, scaling, key, digest, opened, progress)
        if all(opened):  # other files may open the next time, although nothing about them has changed
            cache.remember(manifest, key)
    for name in sorted({*map(shown, listing.train_folders)} - {*decoded.classes}):
        log.warning("class %s has no usable train image: ignored", name)
    return decoded, listing


def list_images(root: Path, labels: str = "") -> Listing:
    """The files below `root`, or in the table `labels`. Raises ValueError if they cannot be trained on."""
    listing = read_labels(root, labels) if labels else scan(root)
    train_classes(listing.files, root)
    return listing


def _content_digest(root: Path, files: Sequence[ImageFile], progress: bool) -> tuple[str, list[bool]]:
    """A hash of all paths, parts, labels and bytes, and whether each file could be opened."""
    paths = [os.path.join(root, file.path) for file in files]  # noqa: PTH118 - Path objects would double the time
    size, worth = _blocks(files, FILES_HASHED_AT_ONCE)
    blocks = map_blocks(_hash_files, paths, size, title="reading files", progress=progress, worth_workers=worth)
    hashes = [each for block in blocks for each in block]
    digest = _hash(*((file[:3], hashed) for file, (hashed, _) in zip(files, hashes, strict=True)))
    return digest, [is_opened for _, is_opened in hashes]


def _blocks(files: Sequence[ImageFile], at_most: int) -> tuple[int, int]:
    """How many of `files` one block holds, 1 to `at_most`, and the number of such files from which workers pay off."""
    size = max(1, min(at_most, max(FILES_IN_A_BLOCK, len(files) // NUM_BLOCKS)))
    num_bytes = sum(file.stamp[0] for file in files)
    return size, PHOTOS_WORTH_WORKERS if num_bytes >= PHOTOS_BYTES else WORTH_WORKERS


def _hash_files(paths: Sequence[str]) -> list[tuple[str, bool]]:
    return [_hash_file(path) for path in paths]


def _hash_file(path: str) -> tuple[str, bool]:
    """(hash of the file's bytes, True), or (why it cannot be opened, False)."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest(), True
    except OSError as error:
        return f"{error.strerror}", False


def _decode(
    root: Path, listing: Listing, scaling: Scaling, key: str, digest: str, opened: Sequence[bool], progress: bool
) -> Decoded:
    """Decodes the files of `listing` into the cache entry `key`. `opened` says which files could be opened before."""
    files = listing.files
    paths = [os.path.join(root, file.path) for file in files]  # noqa: PTH118
    size, worth = _blocks(files, BLOCK_BYTES // (3 * scaling.image_size**2))
    errors: list[ValueError | None] = []
    with cache.Writer(key, scaling.image_size) as writer:
        store = partial(_store, rows=writer.rows, start=writer.start, scaling=scaling)
        numbered = [*enumerate(paths)]
        blocks = map_blocks(store, numbered, size, title="decoding", progress=progress, worth_workers=worth)
        for block, block_errors in blocks:
            writer.record(block)
            errors += block_errors
        for file, error, was_opened in zip(files, errors, opened, strict=True):
            if was_opened and isinstance(error, DiskError):  # the digest covers this file, so the entry must have it
                raise ValueError(f"data_dir={root}: {shown(file.path)} can no longer be read ({error}): start again")
        usable = [file for file, error in zip(files, errors, strict=True) if error is None]
        if not usable:
            raise ValueError(f"data_dir={root}: none of its {len(files)} files is a readable image")
        classes = train_classes(usable, root)
        index = {name: position for position, name in enumerate(classes)}
        return writer.commit(
            {
                "labels": np.array([index[file.label] for file in usable]),
                "parts": np.array([file.part for file in usable]),
                "names": [shown(file.path) for file in usable],
                "classes": [shown(name) for name in classes],
                "digest": digest,
                "groups": _numbers(usable, listing.groups) if listing.groups else None,
                "corrupt": [(shown(file.path), str(error)) for file, error in zip(files, errors, strict=True) if error],
            }
        )


def _numbers(files: Sequence[ImageFile], groups: Mapping[str, str]) -> np.ndarray:
    """A number per file, (N,) int64. Files have the same number if and only if they are in the same group."""
    names = [(1, groups[file.path]) if file.path in groups else (0, file.path) for file in files]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _store(
    numbered: Sequence[tuple[int, str]], rows: Rows, start: int, scaling: Scaling
) -> tuple[Block, list[ValueError | None]]:
    """Writes the readable images of the `numbered` paths into `rows`. Returns an error or None for each path.

    Workers write themselves: sending images through a pipe to one writer would cost as much as writing.
    """
    images, errors = decode_files([path for _, path in numbered], scaling)
    # The block goes where it would be if all images before it were readable. `finish` closes the gaps.
    return put(rows, images, start + numbered[0][0] * 3 * scaling.image_size**2), errors


def decode_files(paths: Sequence[str], scaling: Scaling) -> tuple[np.ndarray, list[ValueError | None]]:
    """The readable images of `paths`, (B, 3, S, S) uint8, and an error or None for each path."""
    # Filled image by image: stacking a list takes NumPy ten times as long.
    images = np.empty((len(paths), 3, scaling.image_size, scaling.image_size), dtype=np.uint8)
    number = 0
    errors: list[ValueError | None] = []
    for path in paths:
        try:
            images[number] = decode(path, *scaling)
            number += 1
            errors.append(None)
        except ValueError as error:
            errors.append(type(error)(str(error)))  # without the traceback, which keeps pixels in memory
    return images[:number], errors


def _hash(*parts: object) -> str:
    """A hash of the printed `parts`, 64 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(ascii(part).encode() + b"\n")
    return digest.hexdigest()
