"""A record of seeded trainings, one for each experiment file. A refactor that moves a number is seen here."""

import csv
from pathlib import Path

import pytest
import torch

from pipeline.experiment_file import EXPERIMENTS, read_experiment
from pipeline.params import TrainParams
from pipeline.settings import resolve
from pipeline.training import device, preflight

RECORD = Path(__file__).with_name("golden.csv")
UPDATES = 5
LOSSES = [f"loss_{number}" for number in range(1, UPDATES + 1)]
SHARES = ["train_accuracy", "valid_accuracy"]
# Small real images that need no download, in fp32 on the CPU. The file gives the rest of the recipe.
SHORTENED = {
    "dataset": "digits",
    "limit_train": "600",
    "batch_size": "32",
    "epochs": "3",
    "image_size": "16",
    "precision": "fp32",
    "device": "cpu",
}
RATES = {"sgd": "0.05", "adamw": "0.002", "muon": "0.01"}
# Processors sum in different orders, and the difference grows over the updates. So the first loss, which no update has
# touched, must be nearest, and the accuracies of the end, of 60 validation images, only similar.
WITHIN = {"loss_1": 0.005, **dict.fromkeys(LOSSES[1:], 0.02), **dict.fromkeys(SHARES, 0.15)}


def names():
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def measured(name):
    """The first losses, and the accuracies of the last epoch, of the shortened training of an experiment file."""
    content = read_experiment(EXPERIMENTS / f"{name}.yaml")
    step = "sweep" if "space" in content and "steps" not in content else "main"
    declared = resolve(step, {"experiment": str(EXPERIMENTS / f"{name}.yaml"), **SHORTENED}).model_dump(mode="json")
    own = {key: str(declared[key]) for key in content if key in TrainParams.model_fields}
    params = resolve("train", {**own, **SHORTENED, "max_lr": RATES[declared["optimizer"]], "weights": "none"})
    events = list(preflight.prepare(params).recipe.one_cycle(params.max_lr).events())
    losses = [float(event.loss) for event in events[:UPDATES]]
    return dict(zip(LOSSES, losses, strict=True)) | {share: getattr(events[-1], share) for share in SHARES}


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_each_experiment_file_trains_as_recorded(name):
    rows = {row["experiment"]: row for row in csv.DictReader(RECORD.open())}
    assert name in rows, f"no record of {name}: python -m tests.training.test_golden writes it"
    found = measured(name)
    for column, within in WITHIN.items():
        recorded = float(rows[name][column]) if rows[name][column] else None
        assert (found[column] is None) == (recorded is None)
        assert recorded is None or found[column] == pytest.approx(recorded, abs=within), column


def write():
    """Records the trainings of this machine as the expected ones."""
    device.choose("cpu")
    torch.set_num_threads(1)
    with RECORD.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["experiment", *LOSSES, *SHARES], lineterminator="\n")
        writer.writeheader()
        for name in names():
            row = {key: "" if value is None else f"{value:.5f}" for key, value in measured(name).items()}
            writer.writerow({"experiment": name, **row})


if __name__ == "__main__":
    write()
