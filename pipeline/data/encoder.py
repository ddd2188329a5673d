"""Encodes pixels as image files."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def to_png(image: np.ndarray) -> bytes:
    """`image` (3, H, W) uint8 as the bytes of a PNG file. `decode` returns the same pixels."""
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
    return file.getvalue()


CAPTION_HEIGHT = 16  # px, above each frame
COLOURS = 64  # in the palette of a frame: half the bytes of 256 colours, and heat maps stay smooth


def write_gif(path: Path, frames: Sequence[np.ndarray], captions: Sequence[str], seconds: float) -> None:
    """Writes `frames` (H, W, 3) uint8 as an animation, each frame below its caption. The last frame stays longer.

    frames: at least one, all of the same size. captions: ASCII text. seconds: how long one frame is shown.
    """
    first, *others = [_framed(frame, caption) for frame, caption in zip(frames, captions, strict=True)]
    shown = [round(1000 * seconds)] * len(others) + [round(4000 * seconds)]
    first.save(path, "GIF", save_all=True, append_images=others, duration=shown, loop=0)


def _framed(frame: np.ndarray, caption: str) -> Image.Image:
    height, width = frame.shape[:2]
    picture = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    picture.paste(Image.fromarray(frame), (0, CAPTION_HEIGHT))
    ImageDraw.Draw(picture).text((4, 2), caption, fill="black")
    return picture.quantize(COLOURS, Image.Quantize.FASTOCTREE)  # takes a third of the default method's time
