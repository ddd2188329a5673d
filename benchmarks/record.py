"""Compares whole trainings of experiments/cifar10_fast.yaml with the network of CIFAR-10's speed record, in turns.

python -m benchmarks.record <class folders of CIFAR-10>   prints the accuracy of three seeds, and that network's time
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow

from benchmarks.contest import PROJECT, Contender, Rates

SEEDS = (0, 1, 2)
PASSES = 400_000  # images seen in the record's recipe: 8 epochs of 50,000
NETWORKS = ("record", "record_blocks_kept")
UPDATES = 10  # per lap
ACCURACIES = ("test/accuracy", "test/accuracy_6_views")


def main(data_dir: str) -> None:
    """Trains, and times the network, in turns. Only one process works at any time."""
    networks = {name: Contender(name, ("benchmarks.training", name, "fast")) for name in NETWORKS}
    laps: dict[str, list[float]] = {name: [] for name in networks}
    trained = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        try:
            for network in networks.values():
                network.start()
            for seed in SEEDS:
                _ask(networks, laps)
                trained.append(train(data_dir, seed))
                print(f"seed {seed}:", {name: round(value, 4) for name, value in trained[-1].items()}, flush=True)
            _ask(networks, laps)
        finally:
            for network in networks.values():
                network.end()
    for name in ACCURACIES:
        values = [each[name] for each in trained]
        print(f"{name}: {statistics.mean(values):.2%}, standard deviation {statistics.stdev(values):.2%}")
    seconds = statistics.mean(each["train_seconds"] for each in trained)
    for name, each in laps.items():
        rates = Rates(tuple(each))
        whole = PASSES / rates.median
        print(f"{name}: {rates} images/s, {whole:.0f} s; ours {seconds:.0f} s, {seconds / whole:.2f} of it")


def _ask(networks: dict[str, Contender], laps: dict[str, list[float]]) -> None:
    for name, network in networks.items():
        laps[name].append(network.lap(UPDATES))


def train(data_dir: str, seed: int) -> dict[str, float]:
    """Trains once. Returns the test accuracies, and the seconds of all epochs."""
    command = [sys.executable, "-m", "pipeline", "main", "--experiment", "experiments/cifar10_fast.yaml"]
    command += ["--dataset", "folder", "--data_dir", data_dir, "--steps", "train,evaluate", "--seed", str(seed)]
    subprocess.run(command, cwd=PROJECT, check=True)
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    train, evaluate = (
        client.search_runs(experiments, f"tags.step = '{step}'", max_results=1)[0] for step in ("train", "evaluate")
    )
    rates = [point.value for point in client.get_metric_history(train.info.run_id, "images_per_second")]
    seconds = sum(PASSES / len(rates) / rate for rate in rates)
    return {"train_seconds": seconds, **{name: evaluate.data.metrics[name] for name in ACCURACIES}}


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()))
