"""Folders of links to photos, which benchmarks make for themselves and for other programs."""

import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.photo_folders import link_photos, write_split


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Ten photos of each of two classes, all of them different."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for label in ("glass", "paper"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8))
            pixels.save(tmp_path / "photos" / label / f"{number}.jpg")
    return tmp_path / "photos"


def linked(folder):
    return sorted(path.resolve() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("at_most", "taken"), [(0, 20), (5, 10)])
def test_the_split_holds_every_photo_once_under_its_class(photos, tmp_path, at_most, taken):
    counts = write_split(photos, tmp_path / "split", at_most)
    assert sum(part.total() for part in counts.values()) == taken
    assert len(set(linked(tmp_path / "split"))) == len(linked(tmp_path / "split")) == taken
    for part, numbers in counts.items():
        for label, number in numbers.items():
            files = linked(tmp_path / "split" / part / label)
            assert len(files) == number > 0
            assert all(file.parent.name == label for file in files)


def test_photos_of_one_name_in_several_parts_are_linked_beside_each_other(photos, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(photos, tmp_path / "parts" / part)
    (tmp_path / "some").mkdir()
    assert link_photos(tmp_path / "some", tmp_path / "parts", 40) == 40
    assert len(set(linked(tmp_path / "some"))) == 40
