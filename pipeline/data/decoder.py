"""Decodes one image file into pixels of a given size."""

import os
import stat
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Resampling, Transpose
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.data import formats, tiff
from pipeline.data.bounds import MAX_PIXELS
from pipeline.data.parallel import map_blocks
from pipeline.text import original

# How to turn an image upright, by its EXIF orientation.
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations whose image is as wide as the stored one is high
WITH_EXIF_IN_HEADER = ("JPEG", "MPO")  # in a PNG, Pillow would decode all pixels to find it
GREY = (128, 128, 128)  # colour around a padded image

# The interpolations that torchvision's weights name.
Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: dict[str, Resampling] = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}


class DiskError(ValueError):
    """The disk could not read the file; its content is not the reason."""


class Scaling(NamedTuple):
    """How `decode` makes an image of any size square."""

    image_size: int
    resize: str = "crop"
    interpolation: str = "bicubic"


def decode(source: str | BinaryIO, image_size: int, resize: str = "crop", interpolation: str = "bicubic") -> np.ndarray:
    """The image in `source`, a path or an open file, as (3, image_size, image_size) uint8 RGB.

    `resize`, a key of `RESIZES`, makes it square; `interpolation` is one of `INTERPOLATIONS`. The EXIF orientation is
    applied. Transparency becomes white. 16-bit grey is scaled, not clipped. If a file has several frames, pages or
    pictures, the first is read. Unreadable metadata are ignored.
    Raises ValueError, which says why, if the pixels cannot be read in full (DiskError if the disk is the reason).
    Images of more than `MAX_PIXELS`, or that take long to decode, raise it before they take memory or time.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF, for example: such an image is read, or refused below
            return _decode(source, image_size, resize, INTERPOLATIONS[interpolation])
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels, or a decompression bomb that claims to be") from None
    except OSError as error:
        # Errors of Pillow itself, for example for a truncated file, have no errno.
        kind = ValueError if error.errno is None else DiskError
        raise kind(_one_line(error.strerror or error)) from error
    except Exception as error:  # on broken files decoders raise anything, from MemoryError to SyntaxError
        raise ValueError(_one_line(error)) from error


def _decode(source: str | BinaryIO, image_size: int, resize: str, filtering: Resampling) -> np.ndarray:
    with _opened(source) as file:
        return formats.read(file, lambda image: _pixels(image, image_size, resize, filtering))


def _pixels(image: Image.Image, image_size: int, resize: str, filtering: Resampling) -> np.ndarray:
    # libjpeg shrinks large photos while it decodes them. Twice the size keeps the quality of resizing.
    image.draft(None, (2 * image_size, 2 * image_size))
    image.load()
    upright = UPRIGHT.get(_orientation(image))
    if upright is not None:
        image = image.transpose(upright)
    return to_array(RESIZES[resize](to_rgb(image), image_size, filtering))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 if there is no readable one."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # on broken EXIF Pillow raises anything
        return 1
    return orientation if isinstance(orientation, int) else 1


def _opened(source: str | BinaryIO) -> AbstractContextManager[BinaryIO]:
    # Path objects take longer.
    return open(source, "rb") if isinstance(source, str) else nullcontext(source)  # noqa: PTH123


def _one_line(error: Exception | str) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` of any mode as 8-bit RGB. Transparent pixels become white."""
    if isinstance(image, TiffImageFile):
        image = tiff.in_levels(image)
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip it
        grey = np.divide(np.asarray(image), 257, dtype=np.float32).round().astype(np.uint8)
        image = Image.fromarray(grey)
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # programs that do not use a BMP's fourth byte leave it 0
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def crop(image: Image.Image, image_size: int, filtering: Resampling = Resampling.BICUBIC) -> Image.Image:
    """The centred square of `image`, scaled to `image_size` px with antialiasing. A square of that size stays exact.

    This gives the same picture as scaling the shorter side and cropping the centre, but scales only the square.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), filtering, box=square)


def squash(image: Image.Image, image_size: int, filtering: Resampling = Resampling.BICUBIC) -> Image.Image:
    """The whole `image`, stretched to a square of `image_size` px with antialiasing."""
    return image.resize((image_size, image_size), filtering)


def pad(image: Image.Image, image_size: int, filtering: Resampling = Resampling.BICUBIC) -> Image.Image:
    """The whole `image` in its own shape, scaled to `image_size` px with antialiasing, centred on a grey square."""
    width, height = (max(1, round(side * image_size / max(image.size))) for side in image.size)
    square = Image.new("RGB", (image_size, image_size), GREY)
    within = image.resize((width, height), filtering)
    square.paste(within, ((image_size - width) // 2, (image_size - height) // 2))
    return square


RESIZES: dict[str, Callable[[Image.Image, int, Resampling], Image.Image]] = {"crop": crop, "squash": squash, "pad": pad}


def to_array(image: Image.Image) -> np.ndarray:
    """RGB `image` as (3, H, W) uint8."""
    # One channel at a time is three times as fast as transposing Pillow's pixels.
    planes = b"".join(image.tobytes("raw", channel) for channel in "RGB")
    return np.frombuffer(planes, dtype=np.uint8).reshape(3, image.height, image.width)


FILES_AT_ONCE = 256


def sizes(root: Path, names: Sequence[str], *, progress: bool = True) -> np.ndarray:
    """Width and height in px, (N, 2) int64, of the images `names` below `root`. Names are as `shown` writes them.

    A JPEG counts as upright, by its EXIF orientation; other formats count as stored. Files that cannot be read, such as
    deleted ones, have 0 and 0.
    """
    paths = [os.path.join(root, original(name)) for name in names]  # noqa: PTH118 - Path objects take longer
    blocks = map_blocks(_sizes, paths, FILES_AT_ONCE, title="reading headers", progress=progress)
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *blocks])


def _sizes(paths: Sequence[str]) -> np.ndarray:
    return np.array([_size(path) for path in paths], dtype=np.int64)


def _size(path: str) -> tuple[int, int]:
    try:
        # Opening a pipe may block for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return 0, 0
        with open(path, "rb") as file, warnings.catch_warnings():  # noqa: PTH123
            warnings.simplefilter("ignore")  # as in `size`
            return formats.read(file, _upright_size)
    except Exception:  # on broken files decoders raise anything
        return 0, 0


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    is_turned = image.format in WITH_EXIF_IN_HEADER and _orientation(image) in QUARTER_TURNS
    return (height, width) if is_turned else (width, height)


def size(file: BinaryIO) -> tuple[int, int]:
    """Width and height in px of the image in `file`, from its header, as `sizes` gives them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that `decode` accepts
            with formats.opened(file) as image:
                return _upright_size(image)
    except Exception:  # on broken files decoders raise anything
        return 0, 0
