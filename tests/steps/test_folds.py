"""A cross-validation trains once per fold, predicts every image once, and says how sure its mean is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import Workplace
from tests.report.reader import Page

TINY = {
    "experiment": "none",
    "dataset": "folder",
    "labels": "labels.csv",
    "image_size": 16,
    "width": 4,
    "model": "resnet9",
}
TINY |= {"batch_size": 8, "epochs": 2, "max_lr": 0.02, "optimizer": "sgd", "valid_fraction": 0.2, "folds": 3}


@pytest.fixture
def workplace(tmp_path):
    """A folder of 45 photos of two classes, in groups of three, and a table that lists them."""
    place, draw, rows = Workplace(tmp_path), np.random.default_rng(0), []
    (tmp_path / "photos").mkdir()
    for number in range(45):
        pixels = draw.integers(0, 128, (16, 16, 3)) + 127 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / f"{number:02}.png")
        rows.append((f"{number:02}.png", ("dark", "light")[number % 2], f"walk {number // 3}"))
    table = pd.DataFrame(rows, columns=["path", "label", "group"])
    table.to_csv(tmp_path / "photos" / "labels.csv", index=False)
    return place


def test_every_image_is_predicted_once_by_a_network_that_was_trained_without_its_fold(workplace, capsys):
    assert workplace.run("main", **TINY, data_dir="photos", steps="train,evaluate") == 0
    (parent,), trainings, evaluations = (workplace.runs(step) for step in ("main", "train", "evaluate"))
    assert [run.data.params["fold"] for run in trainings] == ["3", "2", "1"]
    files = {
        name: workplace.client.download_artifacts(parent.info.run_id, name, str(workplace.folder))
        for name in ("folds.csv", "predictions.csv", "report.html")
    }
    predictions, folds = pd.read_csv(files["predictions.csv"]), pd.read_csv(files["folds.csv"])
    assert sorted(predictions["name"]) == [f"{number:02}.png" for number in range(45)]
    assert predictions.groupby("group")["fold"].nunique().max() == 1
    right = (predictions["true"] == predictions["predicted"]).groupby(predictions["fold"]).mean()
    assert folds["test/accuracy"].tolist() == pytest.approx(right.tolist())
    for run, fold in zip(trainings, (3, 2, 1), strict=True):
        splits = pd.read_csv(workplace.client.download_artifacts(run.info.run_id, "splits.csv", str(workplace.folder)))
        held = {*splits.loc[splits["split"] == "test", "name"]}
        assert held == {*predictions.loc[predictions["fold"] == fold, "name"]} and len(splits) == 45
    numbers = parent.data.metrics
    assert numbers["test/accuracy"] == pytest.approx(right.mean())
    error = right.std(ddof=1) * np.sqrt(1 / 3 + 1 / 2)
    assert numbers["test/accuracy_standard_error"] == pytest.approx(error)
    assert f"3 folds, test accuracy {right.mean():.2%} (corrected standard error" in capsys.readouterr().err
    page = Page(Path(files["report.html"]).read_text("utf-8"))
    shown = {source: float(value) for source, value, _ in page.numbers}
    assert shown["main/test/accuracy_standard_error"] == numbers["test/accuracy_standard_error"]
    assert "main/folds.csv" in {table.source for table in page.tables}
    assert workplace.run("evaluate", run_id=trainings[1].info.run_id) == 0  # of the same fold
    again = workplace.runs("evaluate")[0].data
    assert again.metrics["test/accuracy"] == evaluations[1].data.metrics["test/accuracy"]


@pytest.mark.parametrize(
    ("step", "given", "message"),
    [
        ("main", {"num_seeds": 2}, "folds=3 and num_seeds=2: give one of them"),
        ("main", {"steps": "doctor,train"}, "folds=3: doctor is not run once per fold"),
        ("train", {}, "folds=3: give fold=1 to 3; only main runs all of them"),
        ("train", {"fold": 4}, "fold=4 must be at most folds=3"),
        ("train", {"folds": 1}, "folds=1: give at least 2 folds, or 0 for none"),
        ("train", {"folds": 30, "fold": 1}, "folds=30: "),
    ],
)
def test_impossible_folds_are_refused_in_one_line(workplace, capsys, step, given, message):
    assert workplace.run(step, **{**TINY, **given}, data_dir="photos") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and message in said
    assert not workplace.runs()


def test_two_cross_validations_are_compared_fold_by_fold(workplace, capsys):
    quick = {**TINY, "folds": 2, "data_dir": "photos", "steps": "train,evaluate"}
    assert workplace.run("main", **{**quick, "epochs": 4}) == 0
    assert workplace.run("main", **{**quick, "epochs": 1, "max_lr": 1e-5, "seed": 1}) == 0
    second, first = (run.info.run_id for run in workplace.runs("main"))
    capsys.readouterr()
    assert workplace.run("compare", first, second) == 0
    said, run = capsys.readouterr().err, workplace.runs("compare")[0]
    path = workplace.client.download_artifacts(run.info.run_id, "folds_B.csv", str(workplace.folder))
    table, numbers = pd.read_csv(path), run.data.metrics
    for name, parent in (("A", first), ("B", second)):
        own = pd.read_csv(workplace.client.download_artifacts(parent, "folds.csv", str(workplace.folder)))
        assert table[f"accuracy_{name}"].tolist() == pytest.approx(own["test/accuracy"].tolist())
    differences = table["accuracy_B"] - table["accuracy_A"]
    assert table["images"].sum() == 45 and numbers["compare/B/difference"] == pytest.approx(differences.mean())
    assert numbers["compare/B/standard_error"] == pytest.approx(differences.std(ddof=1) * np.sqrt(1 / 2 + 1))
    assert "in the same 2 folds of 45 images" in said and "max_lr=1e-05" in said
    assert f"folds won by B: {(differences > 0).sum()}, by A: {(differences < 0).sum()})" in said
    one = workplace.runs("evaluate")[0].info.run_id
    before = len(workplace.runs())
    for runs, reason in (((first, one), "is a cross-validation and"), ((first,), "is one cross-validation")):
        assert workplace.run("compare", *runs) == 2
        assert reason in capsys.readouterr().err.splitlines()[-1]
    assert len(workplace.runs()) == before
