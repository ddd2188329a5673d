"""Tables of labels: their files are read like folders, and an untrustworthy table is refused in one line."""

import csv
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import data
from tests.data.photos import SIZE, first_pixels, load, paint

Rows = list[list[str]]


def write(root: Path, rows: Rows, name: str = "labels.csv") -> Path:
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return root / name


def write_photos(root: Path, count: int = 10) -> Rows:
    """Writes `count` PNG files for each of two classes into one folder. Returns the rows that list them."""
    names = [(f"photos/{number:03}.png", ("cat", "dog")[number % 2]) for number in range(2 * count)]
    for number, (name, _) in enumerate(names):
        paint(root / name, (number, 0, 7))
    return [list(each) for each in names]


def splits_of(splits: data.Splits) -> dict[str, data.Split]:
    named = {"train": splits.train, "valid": splits.valid, "test": splits.test}
    return {name: split for name, split in named.items() if split is not None}


def test_a_table_gives_the_labels_and_the_parts_of_files_anywhere(root: Path) -> None:
    rows = write_photos(root)
    splits = ["train", "Train", "val", " TEST "]
    listed = [[f"./{path}", label, splits[number % 4], "x"] for number, (path, label) in enumerate(rows[:-1])]
    write(root, [["Path", " label", "split", "width"], *listed])
    loaded = load(root, labels="labels.csv", valid_fraction=0.5)
    assert loaded.columns == {"width": {path: "x" for path, _ in rows[:-1]}} and not loaded.groups
    assert loaded.classes == ("cat", "dog") and loaded.name == "images" and loaded.flip
    assert {name: len(split) for name, split in splits_of(loaded).items()} == {"train": 10, "valid": 5, "test": 4}
    assert first_pixels(loaded.test)["photos/003.png"] == (3, 0, 7)
    assert "photos/019.png" not in {name for split in splits_of(loaded).values() for name in split.names}
    by_name = dict(zip(loaded.train.names, loaded.train.labels.tolist(), strict=True))
    assert by_name["photos/000.png"] == 0 and by_name["photos/001.png"] == 1


def test_a_table_of_the_folders_gives_their_splits(root: Path) -> None:
    for number in range(20):
        for label in ("cat", "dog"):
            paint(root / label / f"{number}.png", (number, len(label), 0))
    rows = [[f"{label}/{number}.png", label] for label in ("dog", "cat") for number in range(20)]
    table = write(root.parent, [["path", "label"], *rows])
    assert load(root, labels=str(table)).digest == load(root).digest


def test_missing_and_broken_files_are_named_and_the_rest_is_read(root: Path) -> None:
    rows = write_photos(root)
    (root / "photos/000.png").write_text("no picture")
    (root / "photos/001.png").unlink()
    os.mkfifo(root / "photos/pipe")
    rows += [["photos/pipe", "cat"], ["photos", "cat"], ["x" * 300, "dog"]]
    write(root, [["path", "label"], *rows])
    splits = load(root, labels="labels.csv")
    assert dict(splits.report.left_out) == {
        "photos/000.png": "not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image",
        "photos/001.png": "No such file or directory",
        "photos/pipe": "a pipe, socket or device",
        "photos": "a folder",
        "x" * 300: "File name too long",
    }
    assert len(splits.train) + len(splits.test) == 18


def test_no_group_is_in_two_splits_and_groups_change_the_digest(root: Path) -> None:
    rows = write_photos(root, 60)
    group = {path: f"patient {number // 6}" if number < 90 else "" for number, (path, _) in enumerate(rows)}
    write(root, [["path", "label", "group"], *([path, label, group[path]] for path, label in rows)])
    splits = load(root, labels="labels.csv", valid_fraction=0.2)
    where: dict[str, set[str]] = {}
    for part, split in splits_of(splits).items():
        for name in split.names:
            if group[name]:
                where.setdefault(group[name], set()).add(part)
    assert len(where) == 15 and all(len(parts) == 1 for parts in where.values())
    assert {part for parts in where.values() for part in parts} == {"train", "valid", "test"}
    assert splits.groups_of(splits.test) == [group[name] for name in splits.test.names]
    sizes = {part: len(split) / 120 for part, split in splits_of(splits).items()}
    assert sizes["test"] == pytest.approx(0.2, abs=0.05) and sizes["valid"] == pytest.approx(0.16, abs=0.05)
    assert load(root, labels="labels.csv", valid_fraction=0.2).digest == splits.digest  # from the cache too
    write(root, [["path", "label"], *rows])
    assert load(root, labels="labels.csv", valid_fraction=0.2).digest != splits.digest


def test_classes_without_a_test_image_or_with_one_to_train_on_are_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_photos(root, 20)
    for number in range(4):
        paint(root / f"{number}.png", (9, 9, number))
    rows += [["0.png", "emu"], ["1.png", "fox"], ["2.png", "fox"], ["3.png", "fox"]]
    grouped = [[path, label, "den" if label == "fox" else ""] for path, label in rows]
    write(root, [["path", "label", "group"], *grouped])
    load(root, labels="labels.csv")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition(":")[0] for text in warnings] == [
        "one train image and no test image of class emu",
        "no test image of class fox",
    ]
    caplog.clear()
    write(root, [["path", "label", "split"], ["1.png", "emu", "test"], *([*row, "train"] for row in rows[:41])])
    load(root, labels="labels.csv", valid_fraction=0)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "one train image of class emu: the network can learn little about it" in warnings


HEADER = ["path", "label", "split", "group"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no column path and label: its first line must name"),
        ([["path|label"], ["a|b"]], "has no column path and label: its first line must name"),
        ([["path", "label", "label"]], "has several columns label"),
        ([HEADER], "lists no file"),
        ([HEADER, ["a.png", "cat", "train"]], "line 2: 3 cells, not 4"),
        ([HEADER, ["", "cat", "train", ""]], "line 2: its path names no file"),
        ([HEADER, ["a.png", " ", "train", ""]], "line 2: its label has 0 characters; it must have 1 to 255"),
        ([HEADER, ["a.png", "c" * 256, "train", ""]], "line 2: its label has 256 characters; it must have 1 to 255"),
        ([HEADER, ["a.png", "cat", "tset", ""]], "line 2: its split is none of train, valid, test"),
        ([HEADER, ["a.png", "cat", "", ""]], "line 2: its split is none of train, valid, test"),
        ([HEADER, ["/etc/passwd", "cat", "train", ""]], "line 2: its path must be relative"),
        ([HEADER, ["a/../../b.png", "cat", "train", ""]], r"line 2: its path must be relative, and stay"),
        ([HEADER, ["a\x1b[2J\n", "cat", "\u202e", ""]], r"line 3: its split is none of"),
        (
            [HEADER, ["0.png", "a", "train", "x"], ["./0.png", "b", "train", "x"]],
            "line 3: its path is in line 2 already",
        ),
        ([HEADER, ["0.png", "a", "train", "x"], ["1.png", "a", "test", "x"]], "line 3: its group is in another split"),
        ([HEADER, ["0.png", "a", "test", ""], ["1.png", "b", "test", ""]], "no usable train image of a, b"),
        ([HEADER, ["0.png", "a", "train", ""], ["1.png", "a", "test", ""]], r"found one class \(a\)"),
        ([HEADER, ["0.png", "a", "train", "x"], ["1.png", "b", "train", "x"]], "the test split: no group of images"),
        ([HEADER, ["a\\0.png", "a", "train", ""]], "No such file or directory: write / between folders"),
        ([[*HEADER, "exclude"], ["0.png", "a", "train", "", "maybe"]], "line 2: its exclude is none of 1, true, yes"),
        ([["file", "label", "suggested_label"], ["a\\", "b", ""]], "line 2: a backslash in its path or label must be"),
        ([HEADER, ["x" * 200_000, "a", "train", "x"]], r"line 2: not CSV \(field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_trusted_is_refused_in_one_line(rows: Rows, message: str, root: Path) -> None:
    for number in range(2):
        paint(root / f"{number}.png", (number, 0, 0))
    write(root, rows)
    with pytest.raises(ValueError, match=message) as refusal:
        load(root, labels="labels.csv")
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 1000


def test_excluded_photos_are_left_out_and_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = write_photos(root)
    words = dict(zip(range(7), ["1", "TRUE", "Yes", "0", "false", "no", ""], strict=True))
    marked = [[*row, words.get(number, "")] for number, row in enumerate(rows)]
    write(root, [["File", "Label", "Exclude"], *marked, ["gone.png", "", "1"]])
    with caplog.at_level(logging.INFO):
        splits = load(root, labels="labels.csv")
    assert len(splits.train) + len(splits.test) == 17
    assert any(record.getMessage().endswith("labels.csv excludes 4 photos") for record in caplog.records)


def labelled(label: str, control: str = "label", when: str = "") -> dict[str, object]:
    """An annotation as Label Studio exports it."""
    return {"result": [{"from_name": control, "value": {"choices": [label]}}], "updated_at": when}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("hunter2", "is not as in Label Studio's export: export as JSON"),
        ("[" * 100_000, "is not as in Label Studio's export"),
        ({"hunter2": 1}, "is not as in Label Studio's export"),
        ([], "lists no file"),
        ([{"image": "hunter2", "label": "cat"}], "task 1: data is not as in Label Studio's export"),
        ([{"data": {"file": "0.png"}, "annotations": [{"result": 3}]}], "task 1: annotations.0.result is not as in"),
        ([{"data": {"image": "hunter2"}, "annotations": [labelled("cat")]}], "task 1: its data name no `file`"),
        ([{"data": {"file": "../hunter2"}, "annotations": [labelled("cat")]}], "task 1: its path must be relative"),
        ([{"data": {"file": "0.png"}, "annotations": [labelled("cat", "tag")]}], "task 1: 0 labels in its newest"),
        ([{"data": {"file": "0.png"}, "annotations": [labelled("cat")]}] * 2, "task 2: its path is in task 1 already"),
    ],
)
def test_an_export_that_cannot_be_trusted_is_refused_in_one_line(tasks: object, message: str, root: Path) -> None:
    paint(root / "0.png")
    (root / "export.json").write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    with pytest.raises(ValueError, match=message) as refusal:
        load(root, labels="export.json")
    assert str(refusal.value).isprintable() and "hunter2" not in str(refusal.value)


def test_the_newest_annotation_of_a_task_counts_and_a_task_that_nobody_labelled_is_excluded(root: Path) -> None:
    rows = write_photos(root)
    tasks = [{"data": {"file": path, "split": "train"}, "annotations": [labelled(label)]} for path, label in rows]
    tasks[0]["annotations"] = [labelled("emu", when="2026-02-01T00:00Z"), labelled("dog", when="2026-01-01T00:00Z")]
    tasks[1]["annotations"] = []
    (root / "export.json").write_text(json.dumps(tasks))
    splits = load(root, labels="export.json")
    assert splits.classes == ("cat", "dog", "emu") and len(splits.train) + len(splits.test) == 19


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\n\xff\xfe.png,cat\n", "is not UTF-8 text"),
        (b"path,label\n\0.png,cat\n", "names no file|not CSV"),
        (b'path,label\n"a.png,cat\n', "line 2: not CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(content: bytes, message: str, root: Path) -> None:
    root.mkdir()
    (root / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refusal:
        load(root, labels="labels.csv")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "lines",
    [
        ["localhost:5432:db:me:hunter2"],
        ["hunter2,hunter3"],
        ["path,label", "/home/hunter2,x"],
        ["path,label", "hunter2", "hunter2,x"],
        ["path,label", "a,hunter2", "a,hunter2"],
        ["path,label,split", "a,b,hunter2"],
        ["path,label,split,group", "0.png,b,train,hunter2", "1.png,b,test,hunter2"],
        ["path,label", "hunter2.png,x"],
        ["path,label", "a," + "hunter2" * 99],
        ["path,label", "hunter2\0,a"],
        ["path,label", '"hunter2'],
        ["path,label", '"hunter2"hunter2,a'],
    ],
)
def test_a_refusal_quotes_nothing_of_the_file(lines: list[str], root: Path) -> None:
    for number in range(2):
        paint(root / f"{number}.png", (number, 0, 0))
    (root / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="labels=") as refusal:
        load(root, labels="labels.csv")
    assert "hunter" not in str(refusal.value)


def test_a_missing_table_is_refused_in_one_line(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data_dir=.*images is not a folder"):
        load(root, labels="labels.csv")
    root.mkdir()
    os.mkfifo(root / "pipe")
    for name, message in (("labels.csv", "No such file"), (".", "is not a file"), ("pipe", "is not a file")):
        with pytest.raises(ValueError, match=message):
            load(root, labels=name)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_is_read_as_spreadsheets_of_any_locale_write_it(delimiter: str, root: Path) -> None:
    rows = write_photos(root)
    plain = write(root, [["path", "label"], *rows], "plain.csv")
    with (root / "labels.csv").open("w", newline="", encoding="utf-8-sig") as file:  # with a byte order mark
        cells = [["path", "label", "width"], *([*row, f"{number}.5"] for number, row in enumerate(rows))]
        csv.writer(file, delimiter=delimiter).writerows([*cells, ["", "", ""], ["", " "], []])
    assert load(root, labels="labels.csv").digest == load(root, labels=str(plain)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\n", "\r"),
        ("\n", "\n\n"),
        ("\n", " \n"),
        (",", " , "),
        ("\n", ",\n"),
        ("path,label\n", "PATH,Label\n"),
        ("path,label\n", '"path","label"\n'),
        ("path,label\n", "Path ,LABEL \n"),
        ("photos/", "./photos/"),
        ("photos/", "photos//"),
        ("cat", '"cat"'),
        ("19.png,dog\n", "19.png,dog"),
    ],
)
def test_line_ends_blanks_case_and_quotes_do_not_change_a_table(old: str, new: str, root: Path) -> None:
    rows = write_photos(root)
    plain = write(root, [["path", "label"], *rows], "plain.csv")
    text = plain.read_bytes().decode().replace("\r\n", "\n")
    assert old in text
    (root / "labels.csv").write_bytes(text.replace(old, new).encode())
    assert load(root, labels="labels.csv").digest == load(root, labels=str(plain)).digest


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp1252"])
def test_a_table_in_another_encoding_is_refused(encoding: str, root: Path) -> None:
    write_photos(root)
    (root / "labels.csv").write_bytes("path,label\nphotos/000.png,Käfer\n".encode(encoding))
    with pytest.raises(ValueError, match="is not UTF-8 text: save it as CSV UTF-8"):
        load(root, labels="labels.csv")


def test_a_table_can_be_combined_with_the_other_settings(root: Path) -> None:
    rows = write_photos(root)
    write(root, [["path", "label"], *rows])
    splits = load(root, labels="labels.csv", image_size=SIZE, margin=2, resize="pad", limit_train=6)
    assert np.bincount(splits.train.labels).tolist() == [3, 3]
    assert splits.train.take(np.arange(6)).shape == (6, 3, SIZE, SIZE)
