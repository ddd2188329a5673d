"""The formats of image files. Opens a file up to its header, and refuses files that would cost too much."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, TypeVar

import pi_heif
from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from pipeline.data import heif_boxes, tiff
from pipeline.data.bounds import MAX_BYTES, MAX_PIXELS, MAX_SCANNED_PIXELS, MAX_SCANS, Costly
from pipeline.data.jpeg_scans import num_scans
from pipeline.data.repairs import repaired

# Pillow's names, in the order in which they are tried. AVIF is before HEIF, whose reader accepts AVIF files too but
# cannot decode them. Pillow's JPEG includes files with several pictures (MPO). If a file has several pictures or pages,
# the first or main one is read.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
NOT_AN_IMAGE = "not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif", ".hif"),
)
# Suffixes of cameras' raw photos, which are not read.
UNREAD = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw")
SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}

# Each core has its own decoding process, so more threads would only wait for each other.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

T = TypeVar("T")


@contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """The image in `file`, with only its header read.

    Raises ValueError, which says why, or Pillow's DecompressionBombError, if the file is not an image, or if decoding
    it would take too much memory or time.
    """
    scans = num_scans(file, MAX_SCANS)
    tiff.check(file)
    heif_boxes.check(file)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(_unidentified(file)) from None
    with image:
        # Pillow's own limit is higher, and below it Pillow only warns.
        num_pixels = image.width * image.height
        if num_pixels > MAX_PIXELS:
            raise Image.DecompressionBombError
        if scans > min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, num_pixels)):
            raise Costly(f"{scans} scans or more of {num_pixels:,} pixels, which would take minutes to decode")
        yield image


def _unidentified(file: BinaryIO) -> str:
    file.seek(0)
    start = file.read(12)
    kind = next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), "")
    kind = "HEIC or AVIF" if heif_boxes.is_heif_or_avif(start) else kind
    if not kind:
        return NOT_AN_IMAGE
    return f"a {kind} file whose header is broken or cut short, or needs what is not supported"


def read(file: BinaryIO, take: Callable[[Image.Image], T]) -> T:
    """The result of `take` for the image in `file`. A file that cannot be read is repaired first."""
    if file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    try:
        with opened(file) as image:
            return take(image)
    except (Image.DecompressionBombError, Costly):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # an error of the disk
            raise
        file.seek(0)
        content = repaired(file.read())
        if content is None:
            raise
    with opened(BytesIO(content)) as image:
        return take(image)
