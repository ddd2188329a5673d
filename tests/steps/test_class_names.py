"""Class names that look like numbers, missing values or words of a table stay the same in every step."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.text import cell
from tests.conftest import Workplace

CLASSES = ["-inf", "01", "1", "1.0", "1e3", "NA", "None", "True", "[1]", "index", "nan", "null", "on", "train"]
FOLDER = {"experiment": "none", "dataset": "folder", "image_size": 16}
TRAINING = {"width": 8, "epochs": 1, "max_lr": 0.01, "batch_size": 16, "valid_fraction": 0.2}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five photos of each class, all in one folder, and the table of their labels."""
    root = tmp_path_factory.mktemp("names")
    draw = np.random.default_rng(0)
    rows = [["path", "label"]]
    for label, name in enumerate(CLASSES):
        for number in range(5):
            rows.append([f"{label}_{number}.png", name])
            Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / rows[-1][0])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
    """A workplace where steps have written tables, and a function that reads a table of the newest run of a step."""
    workplace = Workplace(tmp_path_factory.mktemp("workplace"))
    data = {**FOLDER, "data_dir": photos, "labels": "labels.csv"}
    assert workplace.run("train", **data, **TRAINING) == 0
    assert workplace.run("evaluate") == 0
    assert workplace.run("explain", num_images=2) == 0
    assert workplace.run("predict", str(photos)) == 0
    assert workplace.run("train", **data, **TRAINING, seed=1) == 0
    assert workplace.run("evaluate") == 0
    assert workplace.run("compare", runs=",".join(run.info.run_id for run in workplace.runs("train"))) == 0
    assert workplace.run("doctor", **data, label_epochs=0) == 0
    folder = tmp_path_factory.mktemp("tables")

    def read(step: str, name: str) -> list[dict[str, str]]:
        (run, *_) = workplace.runs(step)
        path = Path(workplace.client.download_artifacts(run.info.run_id, name, str(folder)))
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return workplace, read


@pytest.mark.parametrize(
    ("step", "table", "column"),
    [
        ("evaluate", "per_class.csv", "class"),
        ("evaluate", "predictions.csv", "true"),
        ("compare", "per_class_B.csv", "class"),
        ("doctor", "class_counts.csv", "class"),
    ],
)
def test_tables_hold_each_class_name_unchanged(done, step, table, column):
    _, read = done
    assert {row[column] for row in read(step, table)} == {cell(name) for name in CLASSES}


def test_the_predicted_classes_of_a_table_are_names_of_classes(done):
    _, read = done
    assert {row["predicted"] for row in read("evaluate", "predictions.csv")} <= {*map(cell, CLASSES)}
