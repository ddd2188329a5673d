"""`evaluate` chooses thresholds for a wanted recall or precision on validation, and measures them on test."""

from pathlib import Path

import pandas as pd
import pytest

from tests.report.reader import Page

TINY = {"experiment": "none", "model": "resnet9", "width": 4, "image_size": 16, "limit_train": 400, "batch_size": 32}
TINY |= {"limit_test": 100, "epochs": 3, "max_lr": 0.1, "optimizer": "sgd", "valid_fraction": 0.25}


def test_thresholds_for_a_recall_are_measured_on_test_and_shown_in_the_report(workplace, capsys):
    assert workplace.run("train", **TINY) == 0
    assert workplace.run("evaluate", wanted_recall=0.8) == 0
    run = workplace.runs("evaluate")[0]
    files = {
        name: workplace.client.download_artifacts(run.info.run_id, name, str(workplace.folder))
        for name in ("thresholds.csv", "predictions.csv", "thresholds.png")
    }
    thresholds, predictions = pd.read_csv(files["thresholds.csv"]), pd.read_csv(files["predictions.csv"])
    covered = 0
    for row in thresholds.to_dict("records"):
        own = predictions[predictions["true"].astype(str) == str(row["class"])]
        reported = own[f"p/{row['class']}"] >= row["threshold"]
        assert row["recall"] == pytest.approx(reported.mean())
        covered += reported.sum()
    numbers = run.data.metrics
    assert thresholds["valid_images"].sum() == 100
    assert numbers["test/threshold_coverage"] == pytest.approx(covered / len(predictions))
    assert (
        numbers["test/threshold_coverage_low"]
        < numbers["test/threshold_coverage"]
        <= numbers["test/threshold_coverage_high"]
    )
    assert (
        f"thresholds for recall 80%: the class is among {numbers['test/threshold_classes']:.2f}"
        in capsys.readouterr().err
    )
    assert workplace.run("report", run_id=run.info.run_id) == 0
    html = workplace.client.download_artifacts(run.info.run_id, "report.html", str(workplace.folder))
    page = Page(Path(html).read_text(encoding="utf-8"))
    assert "of the images of a class are reported as it" in page.text
    assert "evaluate/thresholds.csv" in {table.source for table in page.tables}
    assert "evaluate/test/threshold_classes" in {source for source, *_ in page.numbers}


def test_thresholds_for_a_precision_are_measured_on_test(workplace, capsys):
    assert workplace.run("evaluate", wanted_precision=0.7) == 0  # of the training that the test above ran
    run = workplace.runs("evaluate")[0]
    path = workplace.client.download_artifacts(run.info.run_id, "thresholds.csv", str(workplace.folder))
    table, numbers = pd.read_csv(path), run.data.metrics
    never = table["threshold"].isna()
    assert (table.loc[never, ["reported", "valid_reported"]] == 0).all(axis=None)
    assert numbers["test/classes_without_threshold"] == never.sum()
    share = (table["precision"] * table["reported"]).sum() / table["reported"].sum()
    assert f"thresholds for precision 70%: {share:.1%} of the reports on test are right" in capsys.readouterr().err
    assert "thresholds.png" in workplace.artifacts(run.info.run_id)
    before = len(workplace.runs())
    assert workplace.run("evaluate", wanted_precision=0.7, wanted_recall=0.8) == 2
    assert "wanted_recall=0.8 and wanted_precision=0.7: a class has one threshold" in capsys.readouterr().err
    assert len(workplace.runs()) == before


def test_thresholds_without_validation_images_are_refused_in_one_line(workplace, capsys):
    assert workplace.run("train", **{**TINY, "valid_fraction": 0, "epochs": 1}) == 0
    before = len(workplace.runs())
    for wanted, message in ((0.9, "has no validation images"), (1, "wanted_recall=1: should be less than 1")):
        capsys.readouterr()
        assert workplace.run("evaluate", wanted_recall=wanted) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert len(workplace.runs()) == before
