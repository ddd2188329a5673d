"""Odd images: the doctor names each kind, and finds none in a uniform set."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pipeline.doctor import looks, oddities
from tests.doctor.test_duplicates import SIZE, scenes, survey


def odd(images, sizes=None, deviations=5.0, max_aspect=3.0):
    """Why an image is odd, by the position of the image."""
    table = oddities.find(survey(images), sizes, SIZE, deviations, max_aspect)
    return dict(zip(table["image"], table["why"], strict=True))


def with_last(*planted):
    """120 scenes, and the planted images after them."""
    return np.concatenate([scenes(120), np.stack(planted)])


def test_a_uniform_set_has_no_odd_images():
    assert odd(scenes(200)) == {}


def test_an_image_of_one_colour_is_blank():
    compressed = np.full((3, SIZE, SIZE), 120, dtype=np.uint8)
    compressed[:, ::7] += 1
    assert odd(with_last(compressed, np.zeros_like(compressed))) == {120: "blank", 121: "blank"}


def test_noise_among_scenes_is_unlike_all_others():
    noise = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
    assert odd(with_last(noise)) == {120: "unlike all others"}


def text_image(text, size, background="white", ink="black"):
    """An image of text."""
    picture = Image.new("RGB", (SIZE, SIZE), background)
    ImageDraw.Draw(picture).text((2, 2), text, fill=ink, font=ImageFont.load_default(size))
    return np.asarray(picture).transpose(2, 0, 1)


def test_placeholders_texts_and_drawings_are_mostly_of_one_colour():
    planted = [
        text_image("not found", 9, "#eee", "#888"),
        text_image("the quick\nbrown fox\njumps", 9),
        text_image("O", 24),
    ]
    named = odd(with_last(*planted))
    assert {*named} == {120, 121, 122}
    assert all(oddities.PLAIN_IMAGE in why for why in named.values())


def test_in_a_set_of_drawings_a_drawing_is_not_odd():
    named = odd(np.stack([text_image(chr(65 + number % 26), 24 + number // 26) for number in range(60)]))
    assert not any(oddities.PLAIN_IMAGE in why for why in named.values())


def test_one_blurred_scene_is_odd_and_a_set_of_blurred_scenes_is_not():
    def blurred(image):
        picture = Image.fromarray(image.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(4))
        return np.asarray(picture).transpose(2, 0, 1)

    images = scenes(120)
    assert "blurred" in odd(with_last(blurred(images[0])))[120]
    assert odd(np.stack([blurred(image) for image in images])) == {}


def test_files_are_tiny_or_stretched_by_the_size_that_they_had():
    sizes = np.full((120, 2), SIZE)
    sizes[3], sizes[4], sizes[5], sizes[6] = (SIZE, SIZE // 2 - 1), (1000, 300), (0, 0), (3 * SIZE, SIZE)
    assert odd(scenes(120), sizes) == {3: "tiny", 4: "extreme aspect"}
    assert odd(scenes(120), sizes, max_aspect=2.9) == {3: "tiny", 4: "extreme aspect", 6: "extreme aspect"}


def test_one_to_three_images_can_be_examined():
    for count in (1, 2, 3):
        assert odd(scenes(count)) == {}


@pytest.mark.parametrize("height", [5, 8, 33])
def test_a_checkerboard_has_little_blur_and_an_even_image_has_blur_1(height):
    board = (torch.arange(height)[:, None] + torch.arange(40)[None]) % 2 * 255.0
    even = torch.full((height, 40), 9.0)
    measured = looks.blur(torch.stack([board, even]))
    assert measured[0] < 0.25
    assert measured[1] == 1


def test_blur_rises_with_the_radius():
    image = Image.fromarray(scenes(1)[0].transpose(1, 2, 0)).convert("L")
    pictures = [image, *(image.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 2, 4))]
    measured = looks.blur(torch.stack([torch.from_numpy(np.array(each)).float() for each in pictures])).tolist()
    assert measured == sorted(measured)


def test_the_looks_of_a_set_do_not_depend_on_how_many_are_read_at_once(monkeypatch):
    images = scenes(30)
    whole = survey(images)
    monkeypatch.setattr(looks, "PIXELS_AT_ONCE", 7 * 3 * SIZE**2)
    parts = survey(images)
    assert (whole.thumbnails == parts.thumbnails).all() and (whole.digests == parts.digests).all()
    assert np.allclose(whole.statistics, parts.statistics, atol=1e-3)
