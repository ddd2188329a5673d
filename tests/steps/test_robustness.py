"""A network is measured on spoiled test images, alone and against a reference."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.data.corruptions import CORRUPTIONS
from pipeline.tracking.processes import PROGRESS
from tests.report.reader import Page

TINY = {"experiment": "none", "model": "resnet9", "width": 4, "image_size": 16, "limit_train": 300, "batch_size": 32}
TINY |= {"limit_test": 60, "epochs": 3, "max_lr": 0.1, "optimizer": "sgd"}


@pytest.fixture(scope="module")
def training(workplace):
    assert workplace.run("train", **TINY) == 0
    return workplace.runs("train")[0].info.run_id


def test_spoiled_images_are_measured_and_a_network_beside_itself_has_the_same_errors(workplace, training, capsys):
    assert workplace.run("robustness", reference=training[:8], limit_test=0) == 0
    assert workplace.run("evaluate") == 0
    (run,), evaluation = workplace.runs("robustness"), workplace.runs("evaluate")[0]
    assert run.data.tags["train.run_id"] == run.data.tags["reference.run_id"] == training
    assert run.data.tags[PROGRESS] == "92/92"  # for `status`
    numbers, folder = run.data.metrics, str(workplace.folder)
    for end in ("", "_low", "_high"):
        assert numbers[f"robustness/clean_accuracy{end}"] == pytest.approx(
            evaluation.data.metrics[f"test/accuracy{end}"]
        )
        assert numbers[f"robustness/mean_corruption_error{end}"] == 1
    table, means = (
        pd.read_csv(workplace.client.download_artifacts(run.info.run_id, name, folder))
        for name in ("robustness.csv", "corruptions.csv")
    )
    assert len(table) == 1 + 5 * len(CORRUPTIONS) and set(means["corruption"]) == set(CORRUPTIONS)
    assert table["reference_accuracy"].tolist() == table["accuracy"].tolist()  # both see the same noise
    spoiled = table[table["severity"] > 0]
    assert numbers["robustness/accuracy"] == pytest.approx(spoiled["accuracy"].mean())
    for name, own in spoiled.groupby("corruption"):
        assert numbers[f"robustness/{name}_accuracy"] == pytest.approx(own["accuracy"].mean())
    assert {"robustness.png", "corruptions.png"} <= workplace.artifacts(run.info.run_id)
    said = capsys.readouterr().err
    assert f"worst: {means['corruption'][0]}" in said and "mean corruption error 100.0% of the reference's" in said
    assert workplace.run("report", run_id=run.info.run_id) == 0
    page = Page(Path(workplace.client.download_artifacts(run.info.run_id, "report.html", folder)).read_text("utf-8"))
    shown = {source: float(value) for source, value, _ in page.numbers}
    assert shown["robustness/robustness/accuracy_low"] == numbers["robustness/accuracy_low"]
    assert "robustness/corruptions.csv" in {each.source for each in page.tables}
    assert "robustness/robustness.csv" in page.charted["tables"]


def test_limit_test_sets_the_number_of_images_and_a_reference_is_not_needed(workplace, training):
    assert workplace.run("robustness", run_id=training, limit_test=20) == 0
    numbers = workplace.runs("robustness")[0].data.metrics
    assert numbers["robustness/images"] == 20
    assert "robustness/mean_corruption_error" not in numbers


def test_a_reference_that_cannot_be_one_is_refused_in_one_line(workplace, training, capsys):
    assert workplace.run("train", **{**TINY, "limit_test": 50, "epochs": 1}) == 0
    other, before = workplace.runs("train")[0].info.run_id, len(workplace.runs())
    for reference, message in {
        other: f"reference={other}: its test images or classes differ from those of run {training}",
        "0" * 32: "no such run",
        "latest": "reference=latest: should be the id of a run",
    }.items():
        capsys.readouterr()
        assert workplace.run("robustness", run_id=training, reference=reference) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
    assert len(workplace.runs()) == before
