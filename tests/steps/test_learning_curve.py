"""A learning curve trains on growing parts of the images, continues after an interruption, and says how sure it is."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.steps import learning_curve
from tests.report.reader import Page


def draw_photos(folder, per_class):
    """Photos of two classes that differ by a tint, which noise nearly hides."""
    random = np.random.default_rng(0)
    for tint, name in enumerate(("red", "green")):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = random.integers(0, 200, (32, 32, 3), dtype=np.uint8)
            pixels[..., tint] += 12
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_an_interrupted_learning_curve_repeats_no_probe_and_checks_its_forecast(
    workplace, weights, tmp_path, monkeypatch, capsys
):
    photos = draw_photos(tmp_path / "photos", 105)
    command = {"dataset": "folder", "data_dir": photos, "image_size": 32, "num_seeds": 2}
    probe, calls = learning_curve.probe.run, []

    def interrupted(*given, **more):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return probe(*given, **more)

    monkeypatch.setattr(learning_curve.probe, "run", interrupted)
    assert workplace.run("learning_curve", **command) == 130
    assert workplace.run("learning_curve", resume="latest") == 0
    assert len(calls) == 1 + 4 * 2 - 1  # the interrupted probe runs again; on all images there is only one probe
    said = capsys.readouterr().err
    assert "batch_size=" not in said and "weights=default" in said
    (parent,) = workplace.runs("learning_curve")
    folder = str(workplace.folder)
    files = {
        name: workplace.client.download_artifacts(parent.info.run_id, name, folder)
        for name in ("trainings.csv", "learning_curve.csv", "forecast.csv")
    }
    trainings, curve, forecast = (pd.read_csv(file) for file in files.values())
    assert trainings["images"].tolist() == [21, 21, 42, 42, 84, 84, 168]
    assert curve["trainings"].tolist() == [2, 2, 2, 1]
    means = trainings.groupby("images")["accuracy"].mean()
    assert curve["accuracy"].tolist() == pytest.approx(means.tolist())
    assert (curve["low"] <= curve["accuracy"]).all() and (curve["accuracy"] <= curve["high"]).all()
    assert forecast["images"].iloc[[0, -1]].tolist() == [21, 672]

    chosen = []
    for run_id in trainings["run_id"][:2]:
        splits = pd.read_csv(workplace.client.download_artifacts(run_id, "splits.csv", folder))
        chosen.append({*splits.loc[splits["split"] != "test", "name"]})
        assert splits.loc[splits["split"] != "test", "class"].value_counts().min() >= 10
    assert chosen[0] != chosen[1] and len(chosen[0]) == len(chosen[1]) == 21
    assert workplace.run("evaluate", run_id=trainings["run_id"][0]) == 0
    again = workplace.runs("evaluate")[0].data.metrics["test/accuracy"]
    assert again == pytest.approx(trainings["accuracy"][0])

    numbers = parent.data.metrics
    assert numbers["learning_curve/accuracy"] == pytest.approx(means.iloc[-1])
    reached = numbers["learning_curve/accuracy"] - numbers["learning_curve/check_predicted"]
    assert numbers["learning_curve/check_difference"] == pytest.approx(reached)
    assert "from 84 to 168 images per class: " in said and "held back, was predicted at" in said
    assert workplace.run("report", run_id=parent.info.run_id) == 0
    html = workplace.client.download_artifacts(parent.info.run_id, "report.html", folder)
    page = Page(Path(html).read_text(encoding="utf-8"))
    shown = {source: float(value) for source, value, _ in page.numbers}
    source = "learning_curve/learning_curve/gain_of_double_high"
    assert shown[source] == numbers["learning_curve/gain_of_double_high"]
    assert {"learning_curve/learning_curve.csv"} <= {table.source for table in page.tables}
    assert "learning_curve/forecast.csv" in page.charted["tables"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"limit_train": 700, "batch_size": 16},
            "num_sizes=auto: 700 train images, halved again and again, give 3 sizes of 100 or more (10 for each of",
        ),
        (
            {"num_sizes": 6, "batch_size": 16},
            "num_sizes=6: 1,438 train images, halved again and again, give 4 sizes of 100 or more (10 for each",
        ),
        (
            {"batch_size": 256},
            "give 3 sizes of 286 or more (for one batch of 256, and validation); a learning curve needs",
        ),
        ({"learner": "probe"}, "weights=none: a probe needs pretrained weights"),
        ({"num_sizes": 3}, "num_sizes=3: should be greater than or equal to 4 or should be 'auto'"),
        ({"num_seeds": 1}, "num_seeds=1: should be greater than or equal to 2"),
    ],
)
def test_an_impossible_learning_curve_is_refused_in_one_line(workplace, capsys, given, message):
    before = len(workplace.runs())
    assert workplace.run("learning_curve", experiment="none", **given) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and message in said
    assert len(workplace.runs()) == before
