"""Draws folders of photos: classes that differ by colour, texture or shape, in many sizes and formats.

python -m benchmarks.drawn_photos FOLDER [number, 3000]   always writes the same photos:
  FOLDER/photos/<class>/   `number` photos of eight classes, some with a fault that `doctor` should find
  FOLDER/few/train|test/   four other classes, with 20 train and 50 test photos each
  FOLDER/new/              40 photos without labels, half from the eight classes and half from the four others
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LEAST, MOST = 96, 400  # px a side
SUFFIXES = ("jpg",) * 6 + ("png", "webp", "bmp", "gif")  # each entry is equally likely
SWAPPED, COPIED, NEW, FEW, TESTED = 20, 10, 40, 20, 50  # photos
GRAIN = 8.0  # levels of a sensor's noise

Draw = np.random.Generator
Colour = tuple[int, int, int]


def _colour(draw: Draw) -> Colour:
    red, green, blue = (int(level) for level in draw.integers(20, 236, 3))
    return red, green, blue


def _ground(draw: Draw, size: tuple[int, int]) -> Image.Image:
    """Soft patches of any colour, like a background out of focus."""
    patches = draw.integers(60, 196, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def _hue(low: Colour, high: Colour) -> Callable[[Draw, tuple[int, int]], Image.Image]:
    """Patches of colours between `low` and `high`."""

    def paint(draw: Draw, size: tuple[int, int]) -> Image.Image:
        patches = draw.integers(low, np.add(high, 1), (4, 5, 3), dtype=np.uint8)
        return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)

    return paint


def _pattern(wave: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Draw, tuple[int, int]], Image.Image]:
    """Two colours. The second fills the pixels at which `wave` of rotated coordinates, with period 1, is positive."""

    def paint(draw: Draw, size: tuple[int, int]) -> Image.Image:
        period, angle = min(size) * draw.uniform(0.08, 0.25), draw.uniform(0, np.pi)
        y, x = np.mgrid[: size[1], : size[0]] / period
        across, down = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        ground, other = np.array(_ground(draw, size)), np.array(_colour(draw), dtype=np.uint8)
        return Image.fromarray(np.where(wave(across, down)[..., None] > 0, other, ground))

    return paint


def _shape(corners: int, inner: float = 1.0, hole: float = 0.0) -> Callable[[Draw, tuple[int, int]], Image.Image]:
    """A polygon, or a star if `inner` < 1 pulls the middles of its sides inwards. `hole`: size of another inside it."""

    def paint(draw: Draw, size: tuple[int, int]) -> Image.Image:
        image = _ground(draw, size)
        radius = min(size) * draw.uniform(0.22, 0.42)
        middle = [draw.uniform(radius, side - radius) for side in size]
        turned = np.arange(2 * corners) * np.pi / corners + draw.uniform(0, 2 * np.pi)
        lengths = radius * np.where(np.arange(2 * corners) % 2, inner * np.cos(np.pi / corners), 1)
        canvas = ImageDraw.Draw(image)
        for share in (1.0, hole):
            fill, reach = _colour(draw), share * lengths
            across, down = middle[0] + reach * np.cos(turned), middle[1] + reach * np.sin(turned)
            if share:
                canvas.polygon([*zip(across.tolist(), down.tolist(), strict=True)], fill=fill)
        return image

    return paint


PHOTOS = {
    "ember": _hue((150, 30, 0), (255, 140, 60)),
    "lagoon": _hue((0, 90, 110), (70, 200, 230)),
    "stripes": _pattern(lambda x, _: np.sin(2 * np.pi * x)),
    "checks": _pattern(lambda x, y: np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)),
    "dots": _pattern(lambda x, y: 0.3 - np.hypot(x % 1 - 0.5, y % 1 - 0.5)),
    "disc": _shape(40),
    "triangle": _shape(3),
    "star": _shape(5, 0.5),
}
OTHERS = {
    "meadow": _hue((30, 110, 10), (140, 220, 90)),
    "waves": _pattern(lambda x, y: np.sin(2 * np.pi * (x + 0.4 * np.sin(2 * np.pi * y / 2)))),
    "ring": _shape(40, hole=0.6),
    "square": _shape(4),
}


def one(paint: Callable[[Draw, tuple[int, int]], Image.Image], seed: list[int], path: Path) -> Path:
    """Draws a photo from `seed`, writes it to `path` with a random suffix, and returns the new path."""
    draw = np.random.default_rng(seed)
    width, height = (int(side) for side in draw.integers(LEAST, MOST + 1, 2))
    pixels = np.asarray(paint(draw, (width, height)), dtype=np.float32) * draw.uniform(0.7, 1.1)
    image = Image.fromarray((pixels + draw.normal(0, GRAIN, (height, width, 1))).clip(0, 255).astype(np.uint8))
    path = path.with_suffix(f".{draw.choice(SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def photos(root: Path, number: int) -> None:
    """Writes the folder with eight classes and its faults: swapped labels, copies, and odd or broken files."""
    names = [*PHOTOS]
    written = []
    for i in range(number):
        label = names[i % len(names)]
        # The first few are in the folder of the next class.
        folder = names[(i + 1) % len(names)] if i < SWAPPED else label
        written.append(one(PHOTOS[label], [0, i], root / folder / f"{i:05}"))
    for path in written[-COPIED:]:
        shutil.copy(path, path.with_stem(f"{path.stem}_copy"))
    Image.new("RGB", (200, 150), "black").save(root / "disc/lens_cap.jpg")
    Image.new("RGB", (1200, 60), "teal").save(root / "lagoon/panorama.png")
    whole = next(path for path in written if path.suffix == ".jpg").read_bytes()
    (root / "star/cut_short.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "star/no_photo.jpg").write_text("not a photo")
    (root / "star/notes.txt").write_text("taken in June")


def main(root: Path, number: int) -> None:
    """Writes all three folders."""
    photos(root / "photos", number)
    for label, (name, paint) in enumerate(OTHERS.items()):
        for i in range(FEW + TESTED):
            one(paint, [1, label, i], root / "few" / ("train" if i < FEW else "test") / name / f"{i:03}")
    known = [*PHOTOS.values()]
    for i in range(NEW):
        unknown = [*OTHERS.values()][i % len(OTHERS)]
        one(known[i % len(known)] if i % 2 else unknown, [2, i], root / "new" / f"{i:02}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3000)
