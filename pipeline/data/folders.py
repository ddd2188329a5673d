"""A directory of class sub-folders, or of files in a table -> decoded images, read once and kept in the cache."""

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

BLOCK_BYTES = 2**21  # of pixels: what one worker writes at a time
FILES_HASHED_AT_ONCE = 256
FILES_IN_A_BLOCK = 16  # photographs take long to decode, and a few should keep every core busy
PHOTOS_WORTH_WORKERS = 4 * FILES_IN_A_BLOCK
PHOTOS_BYTES = 2**25  # of as many files: small images take less time than starting workers
NUM_BLOCKS = 64  # of more files, so that all cores are done at about the same time


def read(
    root: Path,
    image_size: int,
    *,
    labels: str = "",
    resize: str = "crop",
    interpolation: str = "bicubic",
    progress: bool = True,
) -> tuple[Decoded, Listing]:
    """The images below `root`, scaled to `image_size` px, and what was found beside them.

    `root` holds train/, and optionally test/ and val/ (or such as `part_folders` knows), of a folder per class each;
    or the class folders themselves; or whatever the CSV file `labels` lists (see `read_labels`). Those of train
    define the classes, sorted by name. `resize`, a key of `RESIZES`, makes images square, scaled by
    `interpolation`, one of `INTERPOLATIONS`. Files that cannot be read are left out and listed in `corrupt`; names
    are as `shown` writes them. Raises ValueError for what cannot be trained on.
    """
    listing = list_images(root, labels)
    # What was not there before has its say only where it is used: what lies in caches keeps its names.
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
        if all(opened):  # what could not be, may be the next time, with nothing about the file changed
            cache.remember(manifest, key)
    for name in sorted({*map(shown, listing.train_folders)} - {*decoded.classes}):
        log.warning("class %s has no usable train image: ignored", name)
    return decoded, listing


def list_images(root: Path, labels: str = "") -> Listing:
    """What lies below `root`, or what the table `labels` lists. Raises ValueError for what cannot be trained on."""
    listing = read_labels(root, labels) if labels else scan(root)
    train_classes(listing.files, root)
    return listing


def _content_digest(root: Path, files: Sequence[ImageFile], progress: bool) -> tuple[str, list[bool]]:
    """A hash of all paths, parts, labels and bytes, and whether each file could be opened."""
    paths = [os.path.join(root, file.path) for file in files]  # noqa: PTH118, as Path objects would double the time
    size, worth = _blocks(files, FILES_HASHED_AT_ONCE)
    blocks = map_blocks(_hash_files, paths, size, title="reading files", progress=progress, worth_workers=worth)
    hashes = [each for block in blocks for each in block]
    digest = _hash(*((file[:3], hashed) for file, (hashed, _) in zip(files, hashes, strict=True)))
    return digest, [is_opened for _, is_opened in hashes]


def _blocks(files: Sequence[ImageFile], at_most: int) -> tuple[int, int]:
    """How many of `files` to read at a time, 1 to `at_most`, and how many of their kind are worth workers."""
    size = max(1, min(at_most, max(FILES_IN_A_BLOCK, len(files) // NUM_BLOCKS)))
    num_bytes = sum(file.stamp[0] for file in files)
    return size, PHOTOS_WORTH_WORKERS if num_bytes >= PHOTOS_BYTES else WORTH_WORKERS


def _hash_files(paths: Sequence[str]) -> list[tuple[str, bool]]:
    return [_hash_file(path) for path in paths]


def _hash_file(path: str) -> tuple[str, bool]:
    """The hash of the file's bytes and True, or why it cannot be opened and False."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest(), True
    except OSError as error:
        return f"{error.strerror}", False


def _decode(
    root: Path, listing: Listing, scaling: Scaling, key: str, digest: str, opened: Sequence[bool], progress: bool
) -> Decoded:
    """Decodes the files of `listing`, of which some could not be `opened` before, into the cache entry `key`."""
    files = listing.files
    paths = [os.path.join(root, file.path) for file in files]  # noqa: PTH118
    size, worth = _blocks(files, BLOCK_BYTES // (3 * scaling.image_size**2))
    errors: list[ValueError | None] = []
    with cache.Writer(key, scaling.image_size) as writer:
        store = partial(_store, rows=writer.rows, start=writer.start, scaling=scaling)
        numbered = [*enumerate(paths)]
        blocks = map_blocks(store, numbered, size, title="decoding", progress=progress, worth_workers=worth)
        for block, block_errors in blocks:
            writer.took(block)
            errors += block_errors
        for file, error, was_opened in zip(files, errors, opened, strict=True):
            if was_opened and isinstance(error, DiskError):  # not left out for good: the entry goes by contents
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
    """A number per file, the same for files of one group alone, (N,) int64."""
    names = [(1, groups[file.path]) if file.path in groups else (0, file.path) for file in files]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _store(
    numbered: Sequence[tuple[int, str]], rows: Rows, start: int, scaling: Scaling
) -> tuple[Block, list[ValueError | None]]:
    """Puts the readable images among `numbered` paths into `rows`, and says, per path, what was wrong with it.

    Here in the worker: a pipe to one process that writes for all would cost as much as writing.
    """
    images, errors = decode_files([path for _, path in numbered], scaling)
    # From where the first would lie if all images before it were readable: gaps are closed in the end.
    return put(rows, images, start + numbered[0][0] * 3 * scaling.image_size**2), errors


def decode_files(paths: Sequence[str], scaling: Scaling) -> tuple[np.ndarray, list[ValueError | None]]:
    """The readable images of `paths` (B, 3, S, S) uint8 and, per path, what was wrong with it."""
    # Filled image by image: to stack a list of them takes NumPy ten times as long.
    images = np.empty((len(paths), 3, scaling.image_size, scaling.image_size), dtype=np.uint8)
    number = 0
    errors: list[ValueError | None] = []
    for path in paths:
        try:
            images[number] = decode(path, *scaling)
            number += 1
            errors.append(None)
        except ValueError as error:
            errors.append(type(error)(str(error)))  # without its traceback, which holds on to pixels
    return images[:number], errors


def _hash(*parts: object) -> str:
    """64 hex digits of what `parts` print as."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(ascii(part).encode() + b"\n")
    return digest.hexdigest()
