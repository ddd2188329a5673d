"""Decoded images on disk: one uint8 memory map and its labels per image set and size, made once."""

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from platformdirs import user_cache_path
from pydantic import BaseModel, NonNegativeInt

log = logging.getLogger(__name__)

VERSION = 2  # of what decoding yields and how it is stored; part of every key
TRAIN, VALID, TEST = range(3)
EXACT_SIDE = 258  # px of the longest row whose sum of squares float32 holds exactly: 258 * 255^2 < 2^24


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image set as its maker divided it: train rows first, then validation, then test."""

    images: np.ndarray  # (N, 3, S, S) uint8, a read-only memory map
    moments: np.ndarray  # (N, 2, 3) int64: sum and sum of squares of each image's pixels, per channel
    labels: np.ndarray  # (N,) int64, indices into `classes`
    parts: np.ndarray  # (N,) int64: TRAIN, VALID or TEST
    names: Sequence[str]
    classes: Sequence[str]
    digest: str  # of what was decoded
    corrupt: Sequence[tuple[str, str]]  # (path, error) of files that were left out
    groups: np.ndarray | None = None  # (N,) int64, rows of one number belong together; None where each is by itself


def folder() -> Path:
    """Where decoded images are kept; XDG_CACHE_HOME moves it."""
    return user_cache_path("classifier-pipeline")


def find(key: str) -> Decoded | None:
    """What was stored under `key`; None if that is nothing or damaged."""
    entry = folder() / key
    try:
        fields = _Fields.model_validate_json((entry / "set.json").read_bytes())
        images, moments = (np.lib.format.open_memmap(entry / name, mode="r") for name in ("images.npy", "moments.npy"))
        return _decoded(np.asarray(images), moments, fields)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever lies there: NumPy's reader alone raises half a dozen kinds
        first_line = f"{error}".partition("\n")[0]
        log.warning("the cached images in %s are damaged (%s): decoding again", entry, first_line)
        return None


class Writer:
    """Stores one entry block by block, so that a set larger than memory can be stored.

    A context: the entry appears whole at `commit`, and whatever ends the context earlier leaves nothing
    behind. A disk that cannot take it raises ValueError.
    """

    def __init__(self, key: str, image_size: int) -> None:
        self._key = key
        self._shape = (3, image_size, image_size)
        self._moments: list[np.ndarray] = []

    def __enter__(self) -> Self:
        with _disk_errors():
            folder().mkdir(parents=True, exist_ok=True)
            self._staging = Path(tempfile.mkdtemp(prefix="making-", dir=folder()))
            self._file = (self._staging / "images.npy").open("wb")
            self._write_header(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _disk_errors():
                self._file.close()
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def append(self, images: np.ndarray) -> None:
        """Adds rows: images (B, 3, S, S) uint8."""
        assert images.dtype == np.uint8 and images.shape[1:] == self._shape
        with _disk_errors():
            # Written, not assigned to a memory map: on a full disk that would kill the process.
            self._file.write(np.ascontiguousarray(images).data)
        self._moments.append(_moments(images))

    def commit(self, fields: dict[str, Any]) -> Decoded:
        """The entry as stored, its `fields` being those of `Decoded` beside images and moments."""
        moments = np.concatenate(self._moments)
        with _disk_errors():
            self._file.seek(0)
            self._write_header(len(moments))
            self._file.flush()
            os.fsync(self._file.fileno())
            np.save(self._staging / "moments.npy", moments)
            text = json.dumps({name: _plain(value) for name, value in fields.items()})
            (self._staging / "set.json").write_text(text, encoding="utf-8")
            self._publish()
        decoded = find(self._key)
        assert decoded is not None
        return decoded

    def _write_header(self, length: int) -> None:
        """The .npy header of `length` images; it takes the same room for any length."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (length, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _publish(self) -> None:
        """Moves the entry to its place, unless another process was first; a damaged one makes way."""
        entry = folder() / self._key
        if entry.exists() and find(self._key) is None:
            shutil.rmtree(entry)
        try:
            self._staging.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _moments(images: np.ndarray) -> np.ndarray:
    """Sum and sum of squares of each image's pixels per channel, (B, 2, 3) int64, exact.

    In floats row by row, and only the rows' sums in integers: a third of the time of integers throughout.
    """
    side = images.shape[-1]
    exact: type[np.floating] = np.float32 if side <= EXACT_SIDE else np.float64
    rows = images.reshape(-1, side).astype(exact)
    sums = (np.einsum("rp->r", rows), np.einsum("rp,rp->r", rows, rows))
    return np.stack([each.reshape(-1, 3, side).sum(axis=2, dtype=np.int64) for each in sums], axis=1)


def recall(manifest: str) -> Decoded | None:
    """The entry that `remember` tied to `manifest`, a hash that is cheaper to get than an entry's key."""
    try:
        key = (folder() / f"{manifest}.key").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return find(key) if key.isalnum() else None


def remember(manifest: str, key: str) -> None:
    """Ties `manifest` to the entry `key`."""
    with _disk_errors():
        with tempfile.NamedTemporaryFile("w", prefix="making-", dir=folder(), delete=False) as file:
            file.write(key)
        Path(file.name).replace(folder() / f"{manifest}.key")


class _Fields(BaseModel):
    """What set.json holds."""

    labels: list[NonNegativeInt]
    parts: list[Literal[0, 1, 2]]
    names: list[str]
    classes: list[str]
    digest: str
    corrupt: list[tuple[str, str]]
    groups: list[NonNegativeInt] | None = None


def _decoded(images: np.ndarray, moments: np.ndarray, fields: _Fields) -> Decoded:
    """The entry of these parts. Raises ValueError where they do not fit together."""
    number, side = len(fields.labels), images.shape[-1]
    if images.dtype != np.uint8 or images.shape != (number, 3, side, side):
        raise ValueError("its images are no images")
    if moments.dtype != np.int64 or moments.shape != (number, 2, 3):
        raise ValueError("its moments are not those of its images")
    columns = (fields.parts, fields.names, fields.labels if fields.groups is None else fields.groups)
    if any(len(column) != number for column in columns):
        raise ValueError("lengths differ")
    if max(fields.labels, default=0) >= len(fields.classes):
        raise ValueError("a label has no class")
    labels, parts = (np.array(values, dtype=np.int64) for values in (fields.labels, fields.parts))
    groups = None if fields.groups is None else np.array(fields.groups, dtype=np.int64)
    names, classes, digest, corrupt = fields.names, fields.classes, fields.digest, fields.corrupt
    return Decoded(images, np.array(moments), labels, parts, names, classes, digest, corrupt, groups)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Says in a ValueError what to do about an OSError."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot store decoded images in {folder()} ({error.strerror or error}): "
            "make room there, or set XDG_CACHE_HOME to a folder with more"
        ) from error
