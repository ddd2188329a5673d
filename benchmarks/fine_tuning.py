"""Measures the gain from fine-tuning with few images: five classes of CIFAR-10, from the weights of the other five.

python -m benchmarks.fine_tuning /path/to/cifar10-jpeg [seeds] [epochs] [source epochs]

The folder holds train/<class> and test/<class>. A `fast` network learns the first five classes. From its weights, and
from nothing, a network then learns the other five, from 20, 50 and 100 images of each, drawn anew for every seed. The
peak rate of each arm is chosen first, on other images. Every number comes from the steps `train` and `evaluate`, run as
a user runs them. Prints the table, and writes the figure and all numbers to build/.
"""

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import mlflow
from mlflow import MlflowClient

from benchmarks.contest import PROJECT
from pipeline.__main__ import main as pipeline

OUT = PROJECT / "build"
FIRST = ("airplane", "automobile", "bird", "cat", "deer")
OTHERS = ("dog", "frog", "horse", "ship", "truck")
SIZES = (20, 50, 100)  # train images of each class
CHOSEN_WITH, CHOSEN_ON = 50, 200  # train and test images of each class for choosing the rates
RATES = (0.008, 0.016, 0.032, 0.064)
RECIPE = {
    "experiment": "none",
    "dataset": "folder",
    "model": "fast",
    "valid_fraction": 0,  # so the last weights are kept
    "optimizer": "muon",
    "normalise_weights": "on",
    "momentum": 0.6,
    "weight_decay": 0,
    "pct_start": 0.1,
    "anneal": "linear",
    "label_smoothing": 0.2,
    "crop_padding": 2,
    "flip": "alternate",
}
SOURCE = {"batch_size": 500, "norm_momentum": 0.4, "max_lr": 0.016, "first_size": 24}
FEW = {"batch_size": 50}
ARMS: dict[str, dict[str, object]] = {"from nothing": {}, "fine-tuned": {"lr_decay": 0.7}}


def main(photos: Path, seeds: int = 5, epochs: int = 25, source_epochs: int = 6) -> None:
    """Prints the table, and writes build/fine_tuning.json and .png."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fine-tuning-") as name:
        folder = Path(name)
        os.chdir(folder)  # the artifacts of the runs go here
        for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
            os.environ[variable] = str(folder / variable)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        source = _source(photos, folder / "source", source_epochs)
        rates = _rates(photos, folder, source, epochs)
        accuracies: dict[str, dict[int, list[float]]] = {arm: {size: [] for size in SIZES} for arm in ARMS}
        for seed in range(seeds):
            for size in SIZES:
                few = _few(photos, folder / f"few-{size}-{seed}", size, seed)
                for arm in ARMS:
                    accuracies[arm][size].append(_learn(few, arm, source, rates[arm], epochs, seed))
    OUT.mkdir(exist_ok=True)
    measured = {"seeds": seeds, "epochs": epochs, "rates": rates, "accuracies": accuracies}
    (OUT / "fine_tuning.json").write_text(json.dumps(measured, indent=2), encoding="utf-8")
    _draw(accuracies)
    print(_table(accuracies), f"\npeak rates: {rates}; {seeds} seeds; {time.monotonic() - started:.0f} s in all")


def _source(photos: Path, folder: Path, epochs: int) -> str:
    """The id of a run that learns the first five classes."""
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
        for each in FIRST:
            (folder / part / each).symlink_to(photos / part / each)
    run_id, accuracy = _run(folder, {**SOURCE, "epochs": epochs, "seed": 0})
    print(f"of the first five classes: {accuracy:.2%}", flush=True)
    return run_id


def _rates(photos: Path, folder: Path, source: str, epochs: int) -> dict[str, float]:
    """The best peak rate of each arm. Uses only train images."""
    few = _few(photos, folder / "for-the-rates", CHOSEN_WITH, "for the rates", CHOSEN_ON)
    found = {arm: {rate: _learn(few, arm, source, rate, epochs, 0) for rate in RATES} for arm in ARMS}
    print(f"accuracy by peak rate: {found}", flush=True)
    return {arm: max(by_rate, key=lambda rate: by_rate[rate]) for arm, by_rate in found.items()}


def _few(photos: Path, folder: Path, size: int, seed: int | str, held_out: int = 0) -> Path:
    """A folder with `size` train images of each of the other five classes, and test images.

    These are the test images of the data set, or if `held_out` > 0, `held_out` other train images of each class.
    """
    for each in OTHERS:
        names = sorted(path.name for path in (photos / "train" / each).iterdir())
        random.Random(f"{seed} {each}").shuffle(names)
        _link(photos / "train" / each, folder / "train" / each, names[:size])
        if held_out:
            _link(photos / "train" / each, folder / "test" / each, names[size : size + held_out])
        else:
            (folder / "test").mkdir(exist_ok=True)
            (folder / "test" / each).symlink_to(photos / "test" / each)
    return folder


def _link(source: Path, folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).symlink_to(source / name)


def _learn(few: Path, arm: str, source: str, rate: float, epochs: int, seed: int) -> float:
    weights = {} if arm == "from nothing" else {"weights": f"run:{source}"}
    accuracy = _run(few, {**FEW, **ARMS[arm], **weights, "epochs": epochs, "max_lr": rate, "seed": seed})[1]
    print(f"{few.name}, {arm}, rate {rate:g}, seed {seed}: {accuracy:.2%}", flush=True)
    return accuracy


def _run(folder: Path, params: Mapping[str, object]) -> tuple[str, float]:
    """Trains and evaluates. Returns the id of the training's run and the accuracy on the folder's test part."""
    for step, given in (("train", {**RECIPE, "data_dir": folder, **params}), ("evaluate", {})):
        if status := pipeline([step, *(word for name, value in given.items() for word in (f"--{name}", str(value)))]):
            sys.exit(status)
    (evaluation,) = MlflowClient().search_runs(["0"], "tags.step = 'evaluate'", max_results=1)
    return evaluation.data.tags["train.run_id"], evaluation.data.metrics["test/accuracy"]


def _table(accuracies: Mapping[str, Mapping[int, list[float]]]) -> str:
    nothing, tuned = (accuracies[arm] for arm in ARMS)
    lines = ["| images of each class | from nothing | fine-tuned | gain, seed by seed |", "|---|---|---|---|"]
    for size in SIZES:
        gains = [after - before for before, after in zip(nothing[size], tuned[size], strict=True)]
        lines.append(f"| {size} | {_mean(nothing[size])} | {_mean(tuned[size])} | {_mean(gains)} |")
    return "\n".join(lines)


def _mean(shares: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.1f}{spread} %"


def _draw(accuracies: Mapping[str, Mapping[int, list[float]]]) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for arm, by_size in accuracies.items():
        means = [100 * statistics.mean(by_size[size]) for size in SIZES]
        (line,) = axes.plot(SIZES, means, label=arm)
        for size in SIZES:
            axes.scatter(
                [size] * len(by_size[size]), [100 * each for each in by_size[size]], s=10, color=line.get_color()
            )
    axes.set(xscale="log", xlabel="train images of each class", ylabel="test accuracy (%)", xticks=SIZES)
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(OUT / "fine_tuning.png", dpi=150)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve(), *(int(word) for word in sys.argv[2:]))
