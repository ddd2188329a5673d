"""A directory of class sub-folders -> decoded images, read once and kept in the cache."""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.data import cache
from pipeline.data.cache import Decoded
from pipeline.data.decode import decode
from pipeline.data.parallel import map_blocks
from pipeline.data.tree import ImageFile, Listing, scan, train_classes
from pipeline.text import shown

log = logging.getLogger(__name__)

BLOCK_BYTES = 2**20  # of pixels: what one worker hands over at a time
FILES_HASHED_AT_ONCE = 256


def read(root: Path, image_size: int, *, progress: bool = True) -> tuple[Decoded, Listing]:
    """The images below `root`, scaled to `image_size` px, and what was found beside them.

    `root` holds train/, and optionally test/ and val/ (or valid/, validation/), of one folder per class each;
    or the class folders themselves. The train folders define the classes, sorted by name. Files that cannot
    be read are left out and listed in `corrupt`; names are as `shown` writes them. Raises ValueError for a
    tree that cannot be trained on.
    """
    listing = scan(root)
    train_classes(listing.files, root)
    manifest = _hash(cache.VERSION, image_size, *listing.files)
    decoded = cache.recall(manifest)
    if decoded is None:
        digest = _content_digest(root, listing.files, progress)
        key = _hash(cache.VERSION, image_size, digest)
        decoded = cache.find(key) or _decode(root, listing.files, image_size, key, digest, progress)
        cache.remember(manifest, key)
    for name in sorted({*map(shown, listing.train_folders)} - {*decoded.classes}):
        log.warning("class %s has no usable train image: ignored", name)
    return decoded, listing


def _content_digest(root: Path, files: Sequence[ImageFile], progress: bool) -> str:
    """A hash of all paths, parts, labels and bytes."""
    paths = [os.path.join(root, file.path) for file in files]  # noqa: PTH118, as Path objects would double the time
    blocks = map_blocks(_hash_files, paths, FILES_HASHED_AT_ONCE, title="reading files", progress=progress)
    hashes = (digest for block in blocks for digest in block)
    return _hash(*((file[:3], digest) for file, digest in zip(files, hashes, strict=True)))


def _hash_files(paths: Sequence[str]) -> list[str]:
    return [_hash_file(path) for path in paths]


def _hash_file(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{error.strerror}"


def _decode(root: Path, files: Sequence[ImageFile], image_size: int, key: str, digest: str, progress: bool) -> Decoded:
    """Decodes `files` into the cache entry `key`."""
    paths = [os.path.join(root, file.path) for file in files]  # noqa: PTH118
    decode_block = partial(decode_files, image_size=image_size)
    block_size = max(1, BLOCK_BYTES // (3 * image_size**2))
    errors: list[str | None] = []
    with cache.Writer(key, image_size) as writer:
        for images, block_errors in map_blocks(decode_block, paths, block_size, title="decoding", progress=progress):
            writer.append(images)
            errors += block_errors
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
                "corrupt": [(shown(file.path), error) for file, error in zip(files, errors, strict=True) if error],
            }
        )


def decode_files(paths: Sequence[str], image_size: int) -> tuple[np.ndarray, list[str | None]]:
    """The readable images of `paths` (B, 3, S, S) and, per path, what was wrong with it."""
    images: list[np.ndarray] = []
    errors: list[str | None] = []
    for path in paths:
        try:
            images.append(decode(path, image_size))
            errors.append(None)
        except ValueError as error:
            errors.append(str(error))
    return np.array(images, dtype=np.uint8).reshape(-1, 3, image_size, image_size), errors


def _hash(*parts: object) -> str:
    """64 hex digits of what `parts` print as."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(ascii(part).encode() + b"\n")
    return digest.hexdigest()
