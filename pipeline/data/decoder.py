"""One image file -> pixels of one size."""

import os
import stat
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Resampling, Transpose
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.data import formats, tiff
from pipeline.data.bounds import MAX_PIXELS
from pipeline.data.parallel import map_blocks
from pipeline.text import original

# What brings an image upright, by its EXIF orientation.
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
GREY = (128, 128, 128)  # beside a padded image

# Those that torchvision's weights name.
Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: dict[str, Resampling] = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}

T = TypeVar("T")


class DiskError(ValueError):
    """A file could not be read, whatever it holds."""


class Scaling(NamedTuple):
    """How an image of any size becomes a square one, as `decode` takes it."""

    image_size: int
    resize: str = "crop"
    interpolation: str = "bicubic"


def decode(source: str | BinaryIO, image_size: int, resize: str = "crop", interpolation: str = "bicubic") -> np.ndarray:
    """The image in `source`, a path or an open file, as (3, image_size, image_size) uint8 RGB, square by `resize`.

    `resize` is a key of `RESIZES`, `interpolation` one of `INTERPOLATIONS`.
    Turned as its EXIF orientation says; transparency shows white; 16-bit grey is scaled, not clipped; of an animation,
    of pages and of several pictures the first. Metadata that cannot be read count as absent. Raises ValueError that
    says why for pixels that cannot be read in full (DiskError where that is not the file's fault), and, before they
    take memory or time, for more than `MAX_PIXELS` and for what takes long to decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF and the like: such an image is read, or refused below
            return _decode(source, image_size, resize, INTERPOLATIONS[interpolation])
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels, or a decompression bomb that claims to be") from None
    except OSError as error:
        # Pillow's own, of a file cut short and the like, have no number.
        kind = ValueError if error.errno is None else DiskError
        raise kind(_line(error.strerror or error)) from error
    except Exception as error:  # on broken files decoders raise anything, from MemoryError to SyntaxError
        raise ValueError(_line(error)) from error


def _decode(source: str | BinaryIO, image_size: int, resize: str, filtering: Resampling) -> np.ndarray:
    with _opened(source) as file:
        return formats.read(file, lambda image: _pixels(image, image_size, resize, filtering))


def _pixels(image: Image.Image, image_size: int, resize: str, filtering: Resampling) -> np.ndarray:
    # libjpeg shrinks large photographs as it decodes; twice the size keeps the quality of resizing.
    image.draft(None, (2 * image_size, 2 * image_size))
    image.load()
    upright = UPRIGHT.get(_orientation(image))
    if upright is not None:
        image = image.transpose(upright)
    return to_array(RESIZES[resize](to_rgb(image), image_size, filtering))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # on broken EXIF Pillow raises anything
        return 1
    return orientation if isinstance(orientation, int) else 1


def _opened(source: str | BinaryIO) -> AbstractContextManager[BinaryIO]:
    # Path objects would take longer.
    return open(source, "rb") if isinstance(source, str) else nullcontext(source)  # noqa: PTH123


def _line(error: Exception | str) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` of any mode as 8-bit RGB, on white where it is transparent."""
    if isinstance(image, TiffImageFile):
        image = tiff.in_levels(image)
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        grey = np.divide(np.asarray(image), 257, dtype=np.float32).round().astype(np.uint8)
        image = Image.fromarray(grey)
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # programs that have no use for a BMP's fourth byte leave it 0
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def crop(image: Image.Image, image_size: int, filtering: Resampling = Resampling.BICUBIC) -> Image.Image:
    """The centred square of `image`, antialiased to `image_size` px; exact where that is its size.

    The same picture as scaling the shorter side and cropping the centre, without scaling what is cropped.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), filtering, box=square)


def squash(image: Image.Image, image_size: int, filtering: Resampling = Resampling.BICUBIC) -> Image.Image:
    """All of `image`, antialiased to `image_size` px a side, whatever its shape."""
    return image.resize((image_size, image_size), filtering)


def pad(image: Image.Image, image_size: int, filtering: Resampling = Resampling.BICUBIC) -> Image.Image:
    """All of `image` in its own shape, antialiased to `image_size` px, in the middle of a grey square."""
    width, height = (max(1, round(side * image_size / max(image.size))) for side in image.size)
    square = Image.new("RGB", (image_size, image_size), GREY)
    within = image.resize((width, height), filtering)
    square.paste(within, ((image_size - width) // 2, (image_size - height) // 2))
    return square


RESIZES: dict[str, Callable[[Image.Image, int, Resampling], Image.Image]] = {"crop": crop, "squash": squash, "pad": pad}


def to_array(image: Image.Image) -> np.ndarray:
    """RGB `image` as (3, H, W) uint8."""
    # A channel at a time, which is three times as fast as transposing what Pillow gives as pixels.
    planes = b"".join(image.tobytes("raw", channel) for channel in "RGB")
    return np.frombuffer(planes, dtype=np.uint8).reshape(3, image.height, image.width)


FILES_AT_ONCE = 256


def sizes(root: Path, names: Sequence[str], *, progress: bool = True) -> np.ndarray:
    """Width and height in px (N, 2) int64 of the images called `names`, as `shown` writes them, below `root`.

    0 and 0 for what cannot be read, such as a file that is gone since.
    """
    paths = [os.path.join(root, original(name)) for name in names]  # noqa: PTH118, as Path objects take longer
    blocks = map_blocks(_sizes, paths, FILES_AT_ONCE, title="reading headers", progress=progress)
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *blocks])


def _sizes(paths: Sequence[str]) -> np.ndarray:
    return np.array([_size(path) for path in paths], dtype=np.int64)


def _size(path: str) -> tuple[int, int]:
    try:
        # Opening a pipe may wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return 0, 0
        with open(path, "rb") as file:  # noqa: PTH123
            return formats.read(file, lambda image: image.size)
    except Exception:  # on broken files decoders raise anything
        return 0, 0


def size(file: BinaryIO) -> tuple[int, int]:
    """Width and height in px of the image in `file`, by its header alone; 0 and 0 for what cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that `decode` accepts
            with formats.opened(file) as image:
                return image.size
    except Exception:  # on broken files decoders raise anything
        return 0, 0
