"""One image file -> pixels of one size."""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")


def decode(path: str, image_size: int) -> np.ndarray:
    """The image in `path` as (3, image_size, image_size) uint8 RGB.

    Turned as its EXIF orientation says; transparency shows white; 16-bit grey is scaled, not clipped; of an
    animation the first frame. Raises ValueError that says why for whatever cannot be read in full.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            # libjpeg shrinks large photographs as it decodes; twice the size keeps the quality of resizing.
            image.draft(None, (2 * image_size, 2 * image_size))
            ImageOps.exif_transpose(image, in_place=True)
            return to_array(resize(to_rgb(image), image_size))
    except UnidentifiedImageError:
        raise ValueError("not a JPEG, PNG, WebP, BMP or GIF image") from None
    except Exception as error:  # on broken files decoders raise anything, from OSError to SyntaxError
        raise ValueError(" ".join(f"{error}".split()) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` of any mode as 8-bit RGB, on white where it is transparent."""
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, image_size: int) -> Image.Image:
    """The centred square of `image`, antialiased bicubic to `image_size` px; exact where that is its size.

    The same picture as scaling the shorter side and cropping the centre, without scaling what is cropped.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = (left, top, left + side, top + side)
    return image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=square)


def to_array(image: Image.Image) -> np.ndarray:
    """RGB `image` as (3, H, W) uint8."""
    return np.asarray(image).transpose(2, 0, 1)
