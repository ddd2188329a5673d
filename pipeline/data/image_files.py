"""Finds unlabelled images by name, and reads them in worker processes, block by block. Nothing is cached."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import has_magic
from pathlib import Path

import numpy as np

from pipeline.data.decoder import Scaling
from pipeline.data.folders import BLOCK_BYTES, FILES_IN_A_BLOCK, PHOTOS_WORTH_WORKERS, decode_files
from pipeline.data.parallel import map_blocks
from pipeline.data.tree import in_words, scan_below, unusable
from pipeline.text import shown


@dataclass
class Found:
    """Paths of files that may be images, files that cannot be images, and counts of the files passed over."""

    paths: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (path as shown, why)
    skipped: Counter[str] = field(default_factory=Counter)  # counts of unimportant files in folders, by reason
    unread: Counter[str] = field(default_factory=Counter)  # counts of photos in unsupported formats, by what to do


@dataclass(frozen=True)
class Batch:
    """Images of one size, and the files between them that could not be read."""

    paths: list[str]  # n, as shown
    images: np.ndarray  # (n, 3, S, S) uint8
    left_out: list[tuple[str, str]]  # (path as shown, why)


def find(asked: Sequence[str]) -> Found:
    """The files that `asked` names, each once. An entry is a file, a folder, or a glob such as *.jpg.

    A folder stands for all images below it, also if a glob matches it. `**` stands for folders at any depth. Raises
    ValueError if an entry of `asked` names nothing, or holds no image.
    """
    found = Found()
    for name in asked:
        num_paths, num_left_out, unread_before = len(found.paths), len(found.left_out), found.unread.copy()
        _add(os.path.expanduser(name), found)  # noqa: PTH111 - a Path raises if there is no such user
        if len(found.paths) > num_paths:
            continue
        if unread := found.unread - unread_before:
            raise ValueError(f"images: {name} has no image but {in_words(unread)}")
        first = "".join(f" ({path}: {reason})" for path, reason in found.left_out[num_left_out:][:1])
        raise ValueError(f"images: {name} has no image{first}")
    found.paths = list(dict.fromkeys(found.paths))
    return found


def read(
    paths: Sequence[str],
    image_size: int,
    batch_size: int,
    *,
    resize: str = "crop",
    interpolation: str = "bicubic",
    margin: int = 0,
    title: str = "",
) -> Iterator[Batch]:
    """The images in `paths`, in order, as batches of `batch_size` or a few more. The last may be smaller, or empty.

    Images are read in the same way as for training. `resize`, a key of `RESIZES`, makes them square; `interpolation` is
    one of `INTERPOLATIONS`. They are read with `margin` px on every side, which are then cut off. Memory holds only a
    few batches, for any number of files.
    """
    scaling = Scaling(image_size + 2 * margin, resize, interpolation)
    block_size = max(1, min(FILES_IN_A_BLOCK, BLOCK_BYTES // (3 * scaling.image_size**2)))
    decode_block = partial(decode_files, scaling=scaling)
    centre = slice(margin, margin + image_size)
    blocks = map_blocks(decode_block, paths, block_size, title=title, worth_workers=PHOTOS_WORTH_WORKERS)
    gathered: list[np.ndarray] = []
    errors: list[ValueError | None] = []
    start = 0
    for images, block_errors in blocks:
        gathered.append(images[..., centre, centre])
        errors += block_errors
        if sum(map(len, gathered)) >= batch_size:
            yield _batch(paths[start : start + len(errors)], gathered, errors)
            start += len(errors)
            gathered, errors = [], []
    if errors:
        yield _batch(paths[start:], gathered, errors)


def _batch(paths: Sequence[str], images: list[np.ndarray], errors: list[ValueError | None]) -> Batch:
    named = [(shown(path), error) for path, error in zip(paths, errors, strict=True)]
    return Batch(
        [path for path, error in named if error is None],
        np.concatenate(images),
        [(path, str(error)) for path, error in named if error is not None],
    )


def _add(name: str, found: Found) -> None:
    try:
        is_folder = Path(name).is_dir()
        if not is_folder:
            _add_file(name, Path(name).stat(), found)
    except FileNotFoundError:
        _add_matches(name, found)
    except (OSError, ValueError) as error:
        raise ValueError(f"images: {name}: {getattr(error, 'strerror', None) or error}") from None
    else:
        if is_folder:
            _add_folder(Path(name), found)


def _add_folder(folder: Path, found: Found) -> None:
    listing = scan_below(folder)
    found.paths += (os.path.join(folder, file.path) for file in listing.files)  # noqa: PTH118 - many
    found.left_out += ((f"{shown(str(folder))}/{path}", reason) for path, reason in listing.left_out)
    found.skipped += listing.skipped
    found.unread += listing.unread


def _add_matches(pattern: str, found: Found) -> None:
    matches = _matches(pattern) if has_magic(pattern) else []
    if not matches:
        raise ValueError(f"images: {Path(pattern).absolute()}: no such file or folder")
    folders: set[Path] = set()
    for match in matches:
        if not folders.isdisjoint(match.parents):
            continue
        try:
            status = match.stat()
        except OSError as error:
            found.left_out.append((shown(str(match)), error.strerror or str(error)))
            continue
        if stat.S_ISDIR(status.st_mode):
            folders.add(match)
            _add_folder(match, found)
        else:
            _add_file(str(match), status, found)


def _matches(pattern: str) -> list[Path]:
    """The visible paths that `pattern` matches, sorted. `**` does not follow links, because they may form circles."""
    asked = Path(pattern)
    matches = Path(asked.anchor or ".").glob(str(asked.relative_to(asked.anchor)))
    known = {*asked.parts}
    return sorted(path for path in matches if not any(part.startswith(".") for part in {*path.parts} - known))


def _add_file(path: str, status: os.stat_result, found: Found) -> None:
    if reason := unusable(status):
        found.left_out.append((shown(path), reason))
    else:
        found.paths.append(path)
