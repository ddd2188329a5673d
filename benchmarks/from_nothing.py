"""Compares optimizers for photos from nothing: validation accuracy of small trainings on several folders of photos.

python -m benchmarks.from_nothing /path/to/photos /path/to/others ... [--seeds 3]

Each seed divides a folder's photos anew: some to learn from, some to validate. All optimizers get the same division,
first weights and recipe, the one that a folder gets without pretrained weights, at 64 px. The first seed tries every
rate. The other seeds take the better one. No test photo is used. Prints a line per training, then the table.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data import Split, Splits
from pipeline.data.batches import NormalisedBatches
from pipeline.experiment_file import read_experiment
from pipeline.params import TrainParams
from pipeline.training import device, recipe
from pipeline.training.photo_defaults import FROM_NOTHING, SMALL
from pipeline.training.recipe import Recipe
from pipeline.training.update import predict

RATES = {"adamw": (1e-3, 4e-3), "muon": (1e-2, 4e-2)}
LEARN, CHECK = 200, 400  # the most photos to learn from and to validate with
EPOCHS, BATCH = 10, 25
FOLDER = Path(__file__).parents[1] / "experiments" / "folder.yaml"


def main(folders: list[Path], seeds: int) -> None:
    """Prints the accuracies of all trainings, and for each folder the mean of each optimizer and their difference."""
    rows = ["| photos | to learn from | to validate | AdamW | Muon | Muon minus AdamW |", "|---|---|---|---|---|---|"]
    for folder in folders:
        splits = recipe.load_splits(_params(folder, "adamw", 0))
        divided = [_divided(splits, seed) for seed in range(seeds)]
        reached = {optimizer: _accuracies(folder, optimizer, divided) for optimizer in RATES}
        gains = [muon - adamw for adamw, muon in zip(reached["adamw"], reached["muon"], strict=True)]
        sizes = f"{len(divided[0].train)} | {len(divided[0].valid or ())}"
        numbers = " | ".join(_mean(each) for each in (*reached.values(), gains))
        rows.append(f"| {folder.name} | {sizes} | {numbers} |")
    print("\n".join(rows))


def _params(folder: Path, optimizer: str, seed: int) -> TrainParams:
    given = {name: value for name, value in read_experiment(FOLDER).items() if name in TrainParams.model_fields}
    images = {"data_dir": str(folder), "image_size": SMALL, "valid_fraction": 0}
    own = {"optimizer": optimizer, "seed": seed, "epochs": EPOCHS, "batch_size": BATCH}
    return TrainParams(**{**given, **FROM_NOTHING, **images, **own})


def _divided(splits: Splits, seed: int) -> Splits:
    """Splits whose train and validation photos are drawn by `seed` from the train photos of `splits`."""
    order = np.random.default_rng(seed).permutation(len(splits.train))
    number = min(LEARN, len(order) // 2)
    learned, checked = (_part(splits.train, some) for some in (order[:number], order[number : number + CHECK]))
    return replace(splits, train=learned, valid=checked)


def _part(split: Split, some: np.ndarray) -> Split:
    names = [split.names[place] for place in some]
    return replace(split, rows=split.rows[some], labels=split.labels[some], names=names)


def _accuracies(folder: Path, optimizer: str, divided: list[Splits]) -> list[float]:
    """The validation accuracy of each seed, at the rate that is best for the first seed."""
    first = {rate: _train(folder, optimizer, 0, divided[0], rate) for rate in RATES[optimizer]}
    best = max(first, key=lambda rate: first[rate])
    return [first[best], *(_train(folder, optimizer, seed, divided[seed], best) for seed in range(1, len(divided)))]


def _train(folder: Path, optimizer: str, seed: int, splits: Splits, rate: float) -> float:
    started = time.monotonic()
    params, where = _params(folder, optimizer, seed), device.choose("auto", repeats_shapes=True)
    made = Recipe(params, splits, where, device.choose_precision("auto", where))
    batches = made.train_batches(seed)
    training = made.cycle(rate, batches, EPOCHS * len(batches), None)
    list(training.events())
    assert splits.valid is not None
    checked = NormalisedBatches(splits, splits.valid, 100, where)
    logits, labels = predict(training.evaluated, checked, made.precision)
    accuracy = float((logits.argmax(1) == labels).float().mean())
    seconds = time.monotonic() - started
    print(f"{folder.name}, {optimizer}, rate {rate:g}, seed {seed}: {accuracy:.1%} in {seconds:.0f} s", flush=True)
    return accuracy


def _mean(shares: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.1f}{spread}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    main([folder.resolve() for folder in asked.folders], asked.seeds)
