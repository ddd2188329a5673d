"""Trains, evaluates and explains with hostile class and file names. They do no harm wherever a person sees them."""

import contextlib
import csv
import io
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.text import cell, shown, visible
from tests.conftest import Workplace

CLASSES = [
    "=cmd|' '!A1",
    "<script>alert(1)<script>",
    "two\nlines\x1b[31m",
    "😀$x_{",
    "\u202egnp",
    "true",
    os.fsdecode(b"\xff\xfe"),
    "x" * 255,
]
FILES = ["+1+1.png", "-2+3.png", "@SUM(A1).png", "new\nline.png", "<b>.png", "'\".png", "$$.png", "😀.png"]
TINY = {
    "experiment": "none",
    "dataset": "folder",
    "image_size": 16,
    "width": 8,
    "epochs": 1,
    "max_lr": 0.01,
    "batch_size": 16,
}
FIGURES = [
    "class_counts.png",
    "confusion_matrix.png",
    "confusion_matrix_normalised.png",
    "misclassified.png",
    "explain/misclassified.png",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "=photos\n<script>"
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for file in FILES:
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name / file)
        (root / name / "=broken\x1b[2J.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def outcome(photos, tmp_path_factory):
    """The artifacts of four steps by path, their warnings, and the text that they print."""
    workplace = Workplace(tmp_path_factory.mktemp("workplace"))
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(io.StringIO()) as said:
        warnings.simplefilter("always")
        assert workplace.run("train", **TINY, data_dir=photos) == 0
        assert workplace.run("evaluate") == 0
        assert workplace.run("explain", num_images=2) == 0
        data = {name: TINY[name] for name in ("experiment", "dataset", "image_size")}
        assert workplace.run("doctor", **data, data_dir=photos, label_folds=2, label_epochs=1) == 0
    files = {}
    for run in workplace.runs():
        folder = tmp_path_factory.mktemp("artifacts")
        for path in workplace.artifacts(run.info.run_id):
            files[path] = workplace.client.download_artifacts(run.info.run_id, path, str(folder))
    # Deprecation warnings come from other libraries.
    ours = [str(each.message) for each in warned if not issubclass(each.category, DeprecationWarning)]
    return files, ours, said.getvalue()


def test_no_cell_starts_a_formula_or_breaks_its_row(outcome):
    files, *_ = outcome
    tables = {path: Path(file).read_text() for path, file in files.items() if path.endswith(".csv")}
    assert {
        "left_out.csv",
        "class_counts.csv",
        "odd_images.csv",
        "predictions.csv",
        "confusion_matrix.csv",
        "explain/maps.csv",
    } <= tables.keys()
    for path, content in tables.items():
        rows = list(csv.reader(content.splitlines()))
        assert len({len(row) for row in rows}) == 1, path
        for text in (text for row in rows for text in row):
            assert text == visible(text)
            assert not text.startswith(("=", "+", "@")), (path, text)
            assert not text.startswith("-") or float(text) < 0, (path, text)


def test_names_agree_between_tables_and_are_the_names_of_the_files(outcome):
    files, *_ = outcome
    predictions, maps = (pd.read_csv(files[name]) for name in ("predictions.csv", "explain/maps.csv"))
    assert {*maps["image"]} <= {*predictions["name"]}
    assert {*predictions["name"]} <= {cell(shown(f"{label}/{file}")) for label in CLASSES for file in FILES}
    names = {cell(shown(name)) for name in CLASSES}
    assert {*predictions["true"]} <= names
    assert {*pd.read_csv(files["per_class.csv"])["class"].astype(str).replace("True", "true")} == names


def test_a_class_named_as_a_column_keeps_its_counts(outcome):
    files, *_ = outcome
    matrix = pd.read_csv(files["confusion_matrix.csv"])
    counts = matrix.iloc[:, :-1].to_numpy()
    assert counts.shape == (len(CLASSES),) * 2
    assert counts.sum() == len(pd.read_csv(files["predictions.csv"]))


def test_each_broken_file_is_named(outcome):
    files, *_ = outcome
    left_out = pd.read_csv(files["left_out.csv"])
    assert {*left_out["file"]} == {cell(shown(f"{name}/=broken\x1b[2J.jpg")) for name in CLASSES}
    assert {*left_out["reason"]} == {"not a JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF or HEIC image"}


def test_figures_are_drawn_without_warnings(outcome):
    files, warned, _ = outcome
    for path in FIGURES:
        pixels = np.asarray(Image.open(files[path]).convert("L"))
        assert pixels.std() > 10, path
        assert max(pixels.shape) < 3000, path
    assert warned == []


def test_the_terminal_gets_no_command(outcome):
    *_, said = outcome
    assert "\x1b" not in said and "\u202e" not in said
    assert r"two\nlines\x1b[31m/=broken\x1b[2J.jpg left out" in said
    assert r"=photos\n<script> has no test part" in said
