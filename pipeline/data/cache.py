"""Keeps decoded images on disk: one uint8 memory map and its labels for each image set and size."""

import errno
import hashlib
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from platformdirs import user_cache_path
from pydantic import BaseModel, NonNegativeInt

from pipeline.data.rows import Rows, moments

log = logging.getLogger(__name__)

VERSION = 4  # changes whenever decoding or the stored format changes; part of every key
TRAIN, VALID, TEST = range(3)
UNFINISHED = "making-"  # names of incomplete entries start with this
ABANDONED_SECONDS = 3600.0  # without a write, after which the process that writes the entry is assumed dead


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image set with the parts that its maker chose: train rows first, then validation, then test."""

    images: np.ndarray  # (N, 3, S, S) uint8, a read-only memory map
    moments: np.ndarray  # (N, 2, 3) int64: sum and sum of squares of each image's pixels, per channel
    labels: np.ndarray  # (N,) int64, indices into `classes`
    parts: np.ndarray  # (N,) int64: TRAIN, VALID or TEST
    names: Sequence[str]
    classes: Sequence[str]
    digest: str  # hash of the source that was decoded
    corrupt: Sequence[tuple[str, str]]  # (path, error) of files that were left out
    groups: np.ndarray | None = None  # (N,) int64: rows with the same number stay together; None if there are no groups


def folder() -> Path:
    """The folder of the decoded images. XDG_CACHE_HOME moves it."""
    return user_cache_path("classifier-pipeline")


def find(key: str) -> Decoded | None:
    """The entry stored under `key`; None if it is missing or damaged."""
    entry = folder() / key
    try:
        fields = _Fields.model_validate_json((entry / "set.json").read_bytes())
        images, moments = (np.lib.format.open_memmap(entry / name, mode="r") for name in ("images.npy", "moments.npy"))
        return _decoded(np.asarray(images), moments, fields)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file raises anything: NumPy's reader alone has half a dozen kinds
        first_line = f"{error}".partition("\n")[0]
        log.warning("the cached images in %s are damaged (%s): decoding again", entry, first_line)
        return None


class Block(NamedTuple):
    """A worker's report about images that it has written into a `Writer`'s file."""

    place: int  # offset of the first image, in bytes
    moments: np.ndarray  # (B, 2, 3) int64, as in `Decoded`
    refused: OSError | None = None  # the error, if the disk did not store the images


class Writer:
    """Stores one entry block by block, so that a set may be larger than memory.

    It is a context manager. The entry appears whole at `commit`. A context that ends before leaves nothing behind.
    After kill -9 or a power cut, a writer that starts at least an hour later removes what is left. Raises ValueError if
    the disk cannot store the entry.
    """

    def __init__(self, key: str, image_size: int) -> None:
        self._key = key
        self._image_size = image_size
        self._blocks: list[Block] = []

    def __enter__(self) -> Self:
        with _disk_errors():
            folder().mkdir(parents=True, exist_ok=True)
            _remove_abandoned()
            self._staging = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder()))
            self.rows = Rows(self._staging / "images.npy", self._image_size)
            try:
                self.start = self.rows.make(0)  # offset of the first image, in bytes
            except BaseException:
                shutil.rmtree(self._staging, ignore_errors=True)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)

    def append(self, images: np.ndarray) -> None:
        """Adds rows: images (B, 3, S, S) uint8."""
        last = self._blocks[-1] if self._blocks else Block(self.start, np.empty((0, 2, 3), dtype=np.int64))
        self.record(put(self.rows, images, last.place + len(last.moments) * 3 * self._image_size**2))

    def record(self, block: Block) -> None:
        """Records the rows that `put` has written. Must be called in the order of the blocks."""
        if block.refused is not None:
            with _disk_errors():
                raise block.refused
        self._blocks.append(block)

    def commit(self, fields: dict[str, Any]) -> Decoded:
        """Stores the entry and returns it. `fields`: the fields of `Decoded` other than images and moments."""
        all_moments = np.concatenate([block.moments for block in self._blocks])
        with _disk_errors():
            self.rows.finish([(block.place, len(block.moments)) for block in self._blocks])
            np.save(self._staging / "moments.npy", all_moments)
            plain = {name: _plain(value) for name, value in fields.items()}
            whole = _Fields(**plain, sha256=_Fields(**plain).digest_of_fields())
            (self._staging / "set.json").write_text(whole.model_dump_json(), encoding="utf-8")
            self._publish()
        decoded = find(self._key)
        assert decoded is not None
        return decoded

    def _publish(self) -> None:
        """Moves the entry to its place, unless another process was first. Replaces a damaged entry."""
        entry = folder() / self._key
        if entry.exists() and find(self._key) is None:
            shutil.rmtree(entry)
        try:
            self._staging.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def put(rows: Rows, images: np.ndarray, place: int) -> Block:
    """Writes images (B, 3, S, S) uint8 into `rows` from byte `place` on. Works in any process."""
    try:
        rows.put(images, place)
    except OSError as error:  # returned as a value, because a worker's exception arrives as another type
        return Block(place, moments(images[:0]), error)
    return Block(place, moments(images))


def recall(manifest: str) -> Decoded | None:
    """The entry that `remember` tied to `manifest`, a hash that is cheaper to compute than the key of an entry."""
    try:
        key = (folder() / f"{manifest}.key").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return find(key) if key.isalnum() else None


def remember(manifest: str, key: str) -> None:
    """Ties `manifest` to the entry `key`."""
    with _disk_errors():
        with tempfile.NamedTemporaryFile("w", prefix=UNFINISHED, dir=folder(), delete=False) as file:
            file.write(key)
        Path(file.name).replace(folder() / f"{manifest}.key")


def _remove_abandoned() -> None:
    for path in folder().glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # another process may have removed it already
            if time.time() - max(each.stat().st_mtime for each in (path, *path.glob("*"))) > ABANDONED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Fields(BaseModel):
    """The content of set.json."""

    labels: list[NonNegativeInt]
    parts: list[Literal[0, 1, 2]]
    names: list[str]
    classes: list[str]
    digest: str
    corrupt: list[tuple[str, str]]
    groups: list[NonNegativeInt] | None = None
    sha256: str = ""  # digest of all other fields; entries of earlier versions have none

    def digest_of_fields(self) -> str:
        """A hash of the other fields, 64 hex digits. It reveals a changed label."""
        return hashlib.sha256(self.model_dump_json(exclude={"sha256"}).encode()).hexdigest()


def _decoded(images: np.ndarray, moments: np.ndarray, fields: _Fields) -> Decoded:
    """The entry made from these parts. Raises ValueError if they do not fit together."""
    if fields.sha256 and fields.sha256 != fields.digest_of_fields():
        raise ValueError("its labels, names or classes are not what was written")
    number, side = len(fields.labels), images.shape[-1]
    if images.dtype != np.uint8 or images.shape != (number, 3, side, side):
        raise ValueError("its images have another shape or type")
    if moments.dtype != np.int64 or moments.shape != (number, 2, 3):
        raise ValueError("its moments do not fit its images")
    columns = (fields.parts, fields.names, fields.labels if fields.groups is None else fields.groups)
    if any(len(column) != number for column in columns):
        raise ValueError("its lists have different lengths")
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
    """Turns an OSError into a ValueError that says what to do."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"cannot store decoded images in {folder()} ({error.strerror or error}): "
            "make room there, or set XDG_CACHE_HOME to a folder that has more room"
        ) from error
