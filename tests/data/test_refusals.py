"""Folders that cannot be trained on, and settings that fit no set, are refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.photos import load, write_parts, write_photos


def _missing(root: Path) -> None: ...


def _empty(root: Path) -> None:
    root.mkdir()


def _raw_photos(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.cr3").write_bytes(b"x")


def _one_class(root: Path) -> None:
    write_photos(root, 4, ("cat",))


def _stray_class(root: Path) -> None:
    write_parts(root)
    write_photos(root / "test", 1, ("fox",))


def _no_train(root: Path) -> None:
    write_photos(root / "test", 2)


def _two_validations(root: Path) -> None:
    write_parts(root)
    write_photos(root / "val", 1)
    write_photos(root / "valid", 1)


def _all_broken(root: Path) -> None:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_text("nothing")


def _class_broken_in_train(root: Path) -> None:
    write_parts(root)
    write_photos(root / "test", 1, ("fox",))
    (root / "train/fox").mkdir()
    (root / "train/fox/1.png").write_text("nothing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "data_dir=.*images is not a folder"),
        (_empty, "data_dir=.*images has no images"),
        (_raw_photos, r"images has no images but 2 \.cr3 \(not read: convert them to JPEG\)$"),
        (_one_class, r"one class \(cat\)"),
        (_stray_class, "no usable train image of fox"),
        (_no_train, "has test/ but no train/"),
        (_two_validations, "has val/ and valid/, which mean the same"),
        (_all_broken, "none of its 2 files is a readable image"),
        (_class_broken_in_train, "no usable train image of fox"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_in_one_line(
    make: Callable[[Path], None], message: str, root: Path, cache_home: Path
) -> None:
    make(root)
    with pytest.raises(ValueError, match=message) as refusal:
        load(root)
    assert "\n" not in str(refusal.value)
    assert not cache_home.exists() or not [*cache_home.iterdir()]


def test_a_folder_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(ValueError, match="data_dir=~nobody-of-that-name/photos is not a folder"):
        load(Path("~nobody-of-that-name/photos"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "imagenet"}, "dataset=imagenet is not known: use one of digits, .*folder"),
        ({"valid_fraction": 1.0}, "valid_fraction=1 must be at least 0 and less than 1"),
        ({"valid_fraction": 0.95}, "valid_fraction=0.95 takes so many of 12 train images"),
        ({"limit_train": 1}, "limit_train=1 is less than the 2 classes"),
        ({"limit_test": 1}, "limit_test=1 is less than the 2 classes"),
        ({"limit_test": -1}, "at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str, root: Path) -> None:
    write_parts(root)
    with pytest.raises(ValueError, match=message):
        load(root, **settings)
