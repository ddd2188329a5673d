"""Names with several Unicode spellings mean one class, one file and one group, and a message says so."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests.data.photos import first_pixels, load, paint, write_photos
from tests.data.test_label_table import write

FORMS = ("NFC", "NFD")
ALIKE = "spelled in several Unicode forms, each taken as one class: "


def spelled(form: str, text: str = "café") -> str:
    return unicodedata.normalize(form, text)  # type: ignore[arg-type]


def write_names(root: Path, form: str, count: int = 6) -> list[str]:
    """Writes files into one folder, with names in the Unicode form `form`."""
    names = [spelled(form, f"größe/é{number}.png") for number in range(count)]
    for number, name in enumerate(names):
        paint(root / name, (number, 0, 7))
    return names


@pytest.mark.parametrize("forms", [FORMS, FORMS[::-1]])
def test_a_class_in_two_forms_is_one_class_in_all_parts_and_is_named_once(
    forms: tuple[str, str], root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(root / "train", 6, (spelled(forms[0]), "dog"))
    write_photos(root / "test", 3, (spelled(forms[1]), "dog"), start=100)
    splits = load(root)
    assert splits.classes == (spelled("NFC"), "dog") and (len(splits.train), len(splits.test)) == (12, 6)
    assert splits.report.remarks == [ALIKE + spelled("NFC")]
    assert caplog.text.count("spelled") == 1
    assert load(root).classes == splits.classes  # from the cache too


def test_two_folders_of_one_name_in_two_forms_are_one_class(root: Path) -> None:
    write_photos(root, 6, (spelled("NFC"), "dog"))
    write_photos(root, 6, (spelled("NFD"),), start=100)
    splits = load(root)
    assert splits.classes == (spelled("NFC"), "dog")
    assert np.bincount(np.concatenate([splits.train.labels, splits.test.labels])).tolist() == [12, 6]
    assert any(name.startswith(spelled("NFD")) for name in first_pixels(splits.train))  # as it lies on the disk


@pytest.mark.parametrize("form", FORMS)
def test_a_set_of_one_form_keeps_it_without_a_message(form: str, root: Path) -> None:
    write_photos(root / "train", 6, (spelled(form), "dog"))
    splits = load(root)
    assert splits.classes == (spelled(form), "dog") and not splits.report.remarks


@pytest.mark.parametrize("forms", [FORMS, FORMS[::-1]])
def test_a_table_finds_files_whatever_form_their_names_have(forms: tuple[str, str], root: Path) -> None:
    write_names(root, forms[0])
    listed = [spelled(forms[1], f"größe/é{number}.png") for number in range(6)]
    labels = [spelled(forms[number // 3], ("été", "dog")[number % 2]) for number in range(6)]
    write(root, [["path", "label"], *map(list, zip(listed, labels, strict=True)), ["größe/ü.png", "dog"]])
    splits = load(root, labels="labels.csv")
    assert splits.classes == ("dog", "été") and len(splits.train) + len(splits.test) == 6
    assert dict(splits.report.left_out) == {"größe/ü.png": "No such file or directory"}
    assert splits.report.remarks == [
        "labels="
        + str(root / "labels.csv")
        + " and the disk spell 6 photos in different Unicode forms: taken as the same",
        ALIKE + "été",
    ]
    for name, pixel in first_pixels(splits.train).items():
        assert (root / name).exists() and name.endswith(f"{pixel[0]}.png")


def test_two_files_whose_names_differ_only_by_form_stay_two(root: Path) -> None:
    rows = [[name, ("cat", "dog")[number % 2]] for form in FORMS for number, name in enumerate(write_names(root, form))]
    write(root, [["path", "label"], *rows])
    splits = load(root, labels="labels.csv")
    assert len(splits.train) + len(splits.test) == 12 and not splits.report.remarks


def test_a_file_listed_in_two_forms_is_listed_twice(root: Path) -> None:
    (name,) = write_names(root, "NFD", 1)
    write(root, [["path", "label"], [name, "cat"], [spelled("NFC", name), "dog"]])
    with pytest.raises(ValueError, match=r"line 3: .* is in line 2 already"):
        load(root, labels="labels.csv")


def test_a_group_in_two_forms_is_one_group(root: Path) -> None:
    names = write_names(root, "NFC", 20)
    header = ["path", "label", "split", "group"]
    rows = [[names[0], "cat", "train", spelled("NFC")], [names[1], "dog", "test", spelled("NFD")]]
    write(root, [header, *rows])
    with pytest.raises(ValueError, match=r"line 3: its group is in another split too"):
        load(root, labels="labels.csv")
    groups = [spelled(FORMS[number % 2], f"é{number // 2 % 5}") for number in range(20)]
    listed = [[name, ("cat", "dog")[number // 10], groups[number]] for number, name in enumerate(names)]
    write(root, [["path", "label", "group"], *listed])
    splits = load(root, labels="labels.csv")
    held = {spelled("NFC", groups[names.index(name)]) for name in splits.test.names}
    assert len(held) == 1 and len(splits.test) == 4
