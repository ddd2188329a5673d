"""Pixels -> an image file."""

from io import BytesIO

import numpy as np
from PIL import Image


def to_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file of `image` (3, H, W) uint8; `decode` gives the same pixels back."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()
