"""Detail of files: their full size, or the size before they were enlarged, by any method."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling

from pipeline.data.detail import detail
from tests.data import heics


def grain(width: int, height: int, seed: int) -> np.ndarray:
    """Noise (height, width) with deviation 1 and, as in photos, the same amount in every octave."""
    waves = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None] * width)
    noise = np.random.default_rng(seed).normal(size=(height, width))
    grey = np.fft.ifft2(np.fft.fft2(noise) / np.maximum(waves, 1)).real
    return np.asarray(grey / grey.std())


def scene(side: int, seed: int) -> Image.Image:
    levels = np.clip(128 + 50 * grain(side + 37, side, seed), 0, 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def write(folder: Path, side: int, times: float = 1, by: Resampling = Resampling.BICUBIC, **options: int) -> list[str]:
    """Writes six JPEG files of `side` px, enlarged `times`. Returns their names."""
    for seed in range(6):
        image = scene(round(side / times), seed)
        enlarged = image if times == 1 else image.resize((round(image.width * times), side), by)
        enlarged.save(folder / f"{seed}.jpg", **options)
    return [f"{seed}.jpg" for seed in range(6)]


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("side", [64, 128, 256, 700])
def test_photos_have_the_detail_of_their_own_size(tmp_path: Path, side: int, quality: int) -> None:
    assert detail(tmp_path, write(tmp_path, side, quality=quality)) == (side, side, 6)


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("by", [Resampling.NEAREST, Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS])
@pytest.mark.parametrize(("side", "times"), [(128, 4), (256, 2), (1024, 8)])
def test_enlarged_files_have_the_detail_of_their_size_before(
    tmp_path: Path, side: int, times: int, by: Resampling, quality: int
) -> None:
    found = detail(tmp_path, write(tmp_path, side, times, by, quality=quality))
    assert found is not None and found.side == side
    assert side / times / 1.4 <= found.detail <= side / times * 1.4


def test_unreadable_and_small_files_give_no_detail(tmp_path: Path) -> None:
    (tmp_path / "broken.heic").write_bytes(heics.PLAIN[:100])
    scene(16, 0).save(tmp_path / "small.png")
    assert detail(tmp_path, ["gone.png", "broken.heic", "small.png"]) is None
