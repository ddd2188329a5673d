"""Pixels -> an image file."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def to_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file of `image` (3, H, W) uint8; `decode` gives the same pixels back."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


CAPTION_HEIGHT = 16  # px, above each frame
COLOURS = 64  # of a frame's palette: half the bytes of 256, and heat stays smooth


def write_gif(path: Path, frames: Sequence[np.ndarray], captions: Sequence[str], seconds: float) -> None:
    """Writes `frames` (H, W, 3) uint8, at least one and all of one size, each under its caption; the last stays longer.

    `seconds` is how long a frame is shown, in all that play; a caption is ASCII text.
    """
    first, *others = [_framed(frame, caption) for frame, caption in zip(frames, captions, strict=True)]
    shown = [round(1000 * seconds)] * len(others) + [round(4000 * seconds)]
    first.save(path, "GIF", save_all=True, append_images=others, duration=shown, loop=0)


def _framed(frame: np.ndarray, caption: str) -> Image.Image:
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    picture.paste(Image.fromarray(frame), (0, CAPTION_HEIGHT))
    ImageDraw.Draw(picture).text((4, 2), caption, fill="black")
    return picture.quantize(COLOURS, Image.Quantize.FASTOCTREE)  # a third of the time that the default takes
