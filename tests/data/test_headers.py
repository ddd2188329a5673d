"""Sizes of images, read from the headers of files that are found by their shown names."""

import os
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from pipeline.data import decoder
from pipeline.text import original, shown


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.text())
def test_the_original_of_a_shown_name_is_the_name(name: str) -> None:
    assert original(shown(name)) == name


def test_the_original_of_a_shown_name_has_its_bytes_that_are_no_text() -> None:
    name = os.fsdecode(b"a\xff\\n\xc3\xa9\n.png")
    assert original(shown(name)) == name


@pytest.mark.parametrize("name", ["plain.png", "new\nline.png", "back\\slash \u202e.jpg", "é😀.bmp"])
def test_width_and_height_of_a_file_are_found_with_any_name(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (70, 31)).save(tmp_path / name)
    assert decoder.sizes(tmp_path, [shown(name)], progress=False).tolist() == [[70, 31]]


def test_width_and_height_are_those_of_the_upright_image_and_large_ones_raise_no_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # as phones store portraits
    Image.new("RGB", (70, 31)).save(tmp_path / "portrait.jpg", exif=exif)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoder.sizes(tmp_path, ["portrait.jpg"], progress=False).tolist() == [[31, 70]]


def test_files_that_cannot_be_read_have_the_size_0(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no picture")
    (tmp_path / "folder.png").mkdir()
    names = ["pipe.png", "broken.png", "folder.png", "gone.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoder.sizes(tmp_path, names, progress=False).tolist() == [[0, 0]] * 4
        assert decoder.sizes(tmp_path, [], progress=False).shape == (0, 2)
