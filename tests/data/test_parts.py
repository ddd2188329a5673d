"""Folders of train, validation and test: they are recognised by name, and never silently treated as classes."""

import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.cache import TEST, TRAIN, VALID
from pipeline.data.parts import part_folders, part_of
from tests.data.photos import load, paint, write_photos

NAMES = {
    TRAIN: "train Training TRAIN_SET training-set Train_data data_train trainset TrainingImages train2017 images.train",
    VALID: "val valid validation Valid_Data validation-images valset ValidationSet dev dev_set 'val (1)' data.Validate",
    TEST: "test TESTING test_set Test-Data testing-images testimages TestSet 'test photos' photos_test",
}
OTHERS = "testament contest trainer valley latest interval retrain train_test trainval station images data 1 eval"


@pytest.mark.parametrize("part", NAMES)
def test_a_part_is_recognised_by_its_word_in_any_case_and_beside_other_words(part: int) -> None:
    names = shlex.split(NAMES[part])
    assert {name: part_of(name) for name in names} == dict.fromkeys(names, part)


@pytest.mark.parametrize("name", [*OTHERS.split(), "", "test tube", "train_station", "seg_train", "été", "\udcff"])
def test_a_name_with_another_meaning_is_no_part(name: str) -> None:
    assert part_of(name) is None


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("seg_train seg_test seg_pred", {"seg_train": TRAIN, "seg_test": TEST}),
        ("FlowersTrain FlowersVal FlowersTest", {"FlowersTrain": TRAIN, "FlowersVal": VALID, "FlowersTest": TEST}),
        ("train test seg_train seg_test", {"train": TRAIN, "test": TEST}),
        ("test seg_train seg_val", {"seg_train": TRAIN, "seg_val": VALID}),
        ("cats_train cats_test dogs_train dogs_test", {}),
        ("train_station test_tube", {}),
        ("train_station bus_station", {}),
        ("crash_test crash_valid", {}),
    ],
)
def test_names_that_differ_only_by_the_word_of_the_part_are_parts(names: str, parts: dict[str, int]) -> None:
    assert part_folders(names.split()) == parts


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("training_set", "validation_set", "test_set"),
        ("Train_data", "Valid_data", "testing-images"),
        ("data_train", "data_val", "data_test"),
        ("TRAIN", "dev", "Test Images"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),  # as some archives are unpacked
        ("train/training_set", "val", "test/test"),
        ("Train_data", "dev", "test_set"),
    ],
)
def test_a_tree_is_read_by_the_names_of_its_parts(root: Path, train: str, valid: str, test: str) -> None:
    for number, (part, count) in enumerate({train: 6, valid: 2, test: 3}.items()):
        write_photos(root / part, count, start=100 * number)
    splits = load(root)
    assert splits.classes == ("cat", "dog") and not splits.report.remarks
    assert (len(splits.train), len(splits.valid or ()), len(splits.test)) == (12, 4, 6)
    assert splits.test.names[0] == f"{test}/cat/0200.png"


def folds(root: Path) -> None:
    write_photos(root / "Set A", 3)
    write_photos(root / "Set B", 3, start=100)


def folds_of_which_one_lacks_a_class(root: Path) -> None:
    folds(root)
    write_photos(root / "Set A", 3, ("fox",))


def folds_in_which_photos_lie_too(root: Path) -> None:
    folds(root)
    paint(root / "Set A/stray.png")


def parts_within_classes(root: Path) -> None:
    for name in ("cat", "dog"):
        write_photos(root / name, 3, ("train", "test"))


def parts_of_each_class(root: Path) -> None:
    write_photos(root, 3, ("cats_train", "cats_test", "dogs_train", "dogs_test"))


def photos_alone(root: Path) -> None:
    write_photos(root, 3, ("train", "test"))


def photos_alone_by_other_names(root: Path) -> None:
    write_photos(root, 3, ("training_set", "seg", "Testing-Images"))


def one_folder_further_down(root: Path) -> None:
    write_photos(root / "archive/train", 3)
    write_photos(root / "archive/test", 3, start=100)


def part_without_a_train_part(root: Path) -> None:
    write_photos(root / "test_set", 3)
    write_photos(root, 3, ("train_set",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (folds, r"Set A/, Set B/ all hold the folders cat/, dog/, so it is not clear which of them are classes"),
        (folds_of_which_one_lacks_a_class, "Set A/, Set B/ all hold the folders cat/, dog/"),
        (folds_in_which_photos_lie_too, "Set A/, Set B/ all hold the folders cat/, dog/"),
        (parts_within_classes, "cat/, dog/ all hold the folders test/, train/, .*: expected train/<class>/<image>"),
        (
            parts_of_each_class,
            "cats_test/ holds 3 photos and cats_train/ holds 3 photos and dogs_test/ .* without class",
        ),
        (photos_alone, "test/ holds 3 photos and train/ holds 3 photos, without class folders: expected train/<class>"),
        (photos_alone_by_other_names, "Testing-Images/ holds 3 photos and training_set/ holds 3 photos, without"),
        (one_folder_further_down, "the parts are one folder further down: give data_dir=.*/images/archive$"),
        (part_without_a_train_part, "has test_set/ but no train/ with a sub-folder per class"),
    ],
)
def test_folders_that_may_be_parts_or_classes_are_refused_in_one_line(
    make: Callable[[Path], None], message: str, root: Path
) -> None:
    make(root)
    with pytest.raises(ValueError, match=message) as refusal:
        load(root)
    assert "\n" not in str(refusal.value)


def test_classes_may_hold_folders_of_their_own(root: Path) -> None:
    write_photos(root / "cat", 3, ("indoors", "garden"))
    write_photos(root / "dog", 3, ("indoors", "beach"))
    write_photos(root, 3, ("train",), start=100)  # a class beside ships and planes
    splits = load(root)
    assert splits.classes == ("cat", "dog", "train") and not splits.report.remarks


@pytest.mark.parametrize("part", ["test", "val", "train", "Testing-Images"])
def test_photos_without_class_folders_are_counted_in_a_message(
    part: str, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(root / "train", 6)
    for number in range(9):
        paint(root / part / f"{number}.JPEG")
    (root / part / "notes.txt").write_text("nothing")
    splits = load(root)
    remark = f"{part}/ holds 9 photos without class folders: not used"
    assert splits.classes == ("cat", "dog") and splits.report.remarks == [remark]
    assert splits.report.skipped == {"outside a class folder": 10}
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING] == [remark]


def test_photos_beside_class_folders_are_counted_in_a_remark(root: Path) -> None:
    write_photos(root, 6)
    paint(root / "one.png")
    assert load(root).report.remarks == ["data_dir holds 1 photo without class folders: not used"]


def test_folders_of_photos_beside_the_parts_are_named(root: Path) -> None:
    write_photos(root / "train", 6)
    write_photos(root / "holdout", 2, start=100)
    write_photos(root, 2, ("bus",), start=200)
    write_photos(root / "mlruns/0", 1)
    (root / "annotations").mkdir()
    (root / "annotations/boxes.csv").write_text("a,b")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX/._1.png").write_bytes(b"x")
    assert load(root).report.remarks == ["photos in bus/, holdout/ are not used: these names mean no part of the set"]
