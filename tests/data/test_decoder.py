"""Decoding: an image file of any kind gives the RGB pixels that a viewer shows."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import models
from torchvision.models import get_model_weights, list_models
from torchvision.transforms import v2

from pipeline.data.decoder import GREY, INTERPOLATIONS, RESIZES, decode
from pipeline.data.encoder import to_png

SIZE = 8


def pixel(path: Path, y: int = 0, x: int = 0) -> tuple[int, ...]:
    return tuple(decode(str(path), SIZE)[:, y, x].tolist())


def gradient(height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_an_image_of_the_right_size_is_untouched(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(gradient()).save(path, lossless=True)
    decoded = decode(str(path), SIZE)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, gradient().transpose(2, 0, 1))


def test_the_centre_is_cropped_exactly(tmp_path: Path) -> None:
    Image.fromarray(gradient(SIZE, SIZE + 5)).save(tmp_path / "wide.png")
    expected = gradient(SIZE, SIZE + 5)[:, 2 : 2 + SIZE].transpose(2, 0, 1)
    assert np.array_equal(decode(str(tmp_path / "wide.png"), SIZE), expected)


def test_shrinking_averages_pixels(tmp_path: Path) -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(255)
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    decoded = decode(str(tmp_path / "board.png"), SIZE)
    assert np.abs(decoded.astype(int) - 127).max() <= 3


def test_a_large_jpeg_is_shrunk_faithfully(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (512, 1))).save(tmp_path / "ramp.jpg", quality=95)
    expected = ramp.reshape(SIZE, -1).mean(axis=1)
    decoded = decode(str(tmp_path / "ramp.jpg"), SIZE).astype(float)
    assert np.abs(decoded - expected).max() < 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_any_shape_becomes_a_square(shape: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", shape, (1, 2, 3)).save(tmp_path / "thin.png")
    assert decode(str(tmp_path / "thin.png"), SIZE).shape == (3, SIZE, SIZE)
    assert pixel(tmp_path / "thin.png") == (1, 2, 3)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257 * 100, 100), (65535, 255)])
def test_16_bit_grey_is_scaled(value: int, expected: int, tmp_path: Path) -> None:
    Image.fromarray(np.full((SIZE, SIZE), value, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert pixel(tmp_path / "deep.png") == (expected,) * 3


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_becomes_rgb(mode: str, tmp_path: Path) -> None:
    Image.new(mode, (SIZE, SIZE), 255).save(tmp_path / "grey.png")
    assert pixel(tmp_path / "grey.png") == (255, 255, 255)


def test_cmyk_keeps_its_colour(tmp_path: Path) -> None:
    Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    red, green, blue = pixel(tmp_path / "red.jpg")
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 100), (128, 177)])
def test_transparency_shows_white(alpha: int, expected: int, tmp_path: Path) -> None:
    Image.new("RGBA", (SIZE, SIZE), (100, 100, 100, alpha)).save(tmp_path / "rgba.png")
    Image.new("LA", (SIZE, SIZE), (100, alpha)).save(tmp_path / "la.png")
    for name in ("rgba.png", "la.png"):
        assert pixel(tmp_path / name)[0] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("alphas", "expected"), [((0, 0), 100), ((255, 255), 100), ((255, 0), 100), ((0, 255), 255)])
@pytest.mark.parametrize("masks", ["BGRA", "RGBA"])
def test_a_bmp_whose_alpha_is_zero_throughout_is_opaque(
    masks: str, alphas: tuple[int, int], expected: int, tmp_path: Path
) -> None:
    """Photoshop and other programs leave the fourth byte 0, under a header that calls it alpha."""
    pixels = np.full((SIZE, SIZE, 4), 100, dtype=np.uint8)
    pixels[..., 3] = alphas[1]
    pixels[0, 0, 3] = alphas[0]
    red, blue = (0xFF0000, 0xFF) if masks == "BGRA" else (0xFF, 0xFF0000)
    info = struct.pack("<IiiHHIIiiII4I", 124, SIZE, -SIZE, 1, 32, 3, 0, 0, 0, 0, 0, red, 0xFF00, blue, 0xFF000000)
    header = info + bytes(124 - len(info))
    content = b"BM" + struct.pack("<IHHI", 138 + pixels.nbytes, 0, 0, 138) + header + pixels.tobytes()
    (tmp_path / "alpha.bmp").write_bytes(content)
    assert pixel(tmp_path / "alpha.bmp") == (expected,) * 3
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    assert pixel(tmp_path / "alpha.png")[0] == (100 if alphas[0] else 255)  # a PNG means its alpha


def test_a_palette_with_a_transparent_colour_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (SIZE, SIZE), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((SIZE - 1, 0), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    assert pixel(tmp_path / "palette.png") == (255, 255, 255)
    assert pixel(tmp_path / "palette.png", 0, SIZE - 1) == (200, 100, 50)


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert pixel(tmp_path / "moving.gif") == (255, 0, 0)


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image = Image.fromarray(gradient())
    exif = image.getexif()
    exif[0x112] = 6  # to be turned clockwise by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(gradient(), -1).transpose(2, 0, 1)
    assert np.array_equal(decode(str(tmp_path / "turned.png"), SIZE), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"text", "not a JPEG, PNG"), (b"\x89PNG\r\n\x1a\n", "."), (b"GIF89a", "."), (b"\xff\xd8\xff\xe0", ".")],
)
def test_a_broken_file_is_refused_in_one_line_with_a_reason(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "rubbish.png").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        decode(str(tmp_path / "rubbish.png"), SIZE)
    assert "\n" not in str(refusal.value) and "0x" not in str(refusal.value)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "image.ppm")
    with pytest.raises(ValueError, match="not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"):
        decode(str(tmp_path / "image.ppm"), SIZE)


def test_an_image_that_is_not_square_is_cut_squashed_or_padded(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8, 0], pixels[:, 8:, 1] = 200, 100
    Image.fromarray(pixels).save(path)
    cut, squashed, padded = (decode(str(path), 8, resize) for resize in ("crop", "squash", "pad"))
    assert cut[0, 0].tolist() == [200] * 4 + [0] * 4  # exact: of its own size
    assert squashed[0, :, 0].tolist() == [200] * 8 and squashed[1, :, 7].tolist() == [100] * 8
    assert (padded[:, :2] == GREY[0]).all() and (padded[:, 6:] == GREY[0]).all()
    assert padded[0, 2:6, 0].tolist() == [200] * 4 and padded[1, 2:6, 7].tolist() == [100] * 4


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_images_are_scaled_by_the_given_interpolation(tmp_path: Path, interpolation: str, resize: str) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(gradient(40, 40)).save(path)
    scale = v2.Resize(SIZE, v2.InterpolationMode(interpolation), antialias=True)  # as torchvision's presets do
    expected = np.asarray(scale(Image.open(path))).transpose(2, 0, 1)
    assert np.array_equal(decode(str(path), SIZE, resize, interpolation), expected)
    others = [decode(str(path), SIZE, resize, other) for other in INTERPOLATIONS if other != interpolation]
    assert not any(np.array_equal(other, expected) for other in others)


def test_every_interpolation_of_torchvision_s_weights_is_known() -> None:
    networks = list_models(module=models)
    named = {weights.transforms().interpolation.value for name in networks for weights in get_model_weights(name)}
    assert named == {*INTERPOLATIONS}


@pytest.mark.parametrize("size", [(1, 2000), (2000, 1)])
def test_an_image_one_pixel_wide_is_padded(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "line.png")
    assert decode(str(tmp_path / "line.png"), 8, "pad").shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff", "avif", "mpo"])
def test_an_open_file_is_read_from_its_start(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(gradient(3 * SIZE, 2 * SIZE)).save(path)
    file = BytesIO(path.read_bytes())
    file.seek(5)
    assert np.array_equal(decode(file, SIZE), decode(str(path), SIZE))


def test_half_an_image_and_no_bytes_are_refused_with_a_reason(tmp_path: Path) -> None:
    Image.fromarray(gradient(64, 64)).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    with pytest.raises(ValueError, match="truncated"):
        decode(BytesIO(content[: len(content) // 2]), SIZE)
    with pytest.raises(ValueError, match="not a JPEG, PNG"):
        decode(BytesIO(b""), SIZE)


def test_a_png_of_pixels_is_decoded_to_the_same_pixels() -> None:
    image = gradient().transpose(2, 0, 1)
    assert np.array_equal(decode(BytesIO(to_png(image)), SIZE), image)
