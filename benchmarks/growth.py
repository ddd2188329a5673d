"""Measures how time and memory grow with the images, the patch size and the classes: python -m benchmarks.growth

Prints a table per axis, with the exponent of the power law that fits best, and writes build/growth.png. Each point is
measured in its own process (`python -m benchmarks.growth <axis> <value>`).
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.contest import PROJECT
from benchmarks.laps import now
from benchmarks.synthetic import splits
from pipeline.data.splits import Splits
from pipeline.params import TrainStepParams
from pipeline.training import device
from pipeline.training.events import StepEnd
from pipeline.training.recipe import Recipe

OUT = PROJECT / "build"
UPDATES = 8  # timed updates, after the same number of untimed ones
MEBI = 2**20


class Cost(NamedTuple):
    """The time and the memory that a training took."""

    seconds: float
    mebibytes: float  # largest private memory at any update; the kernel can free images that are mapped from a file


def images(count: int) -> Cost:
    """One epoch over `count` images in a file, with a network that costs little compared to reading them."""
    params = TrainStepParams(model="fast", width=4, batch_size=512, optimizer="sgd", max_lr=0.01, epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        return _cost(params, splits(count, folder=Path(folder)))


def patch_size(side: int) -> Cost:
    """Updates of a ViT (192 wide, 6 blocks) over batches of 64 images of 32 px."""
    params = TrainStepParams(model="vit", patch_size=side, batch_size=64, max_lr=1e-3, epochs=1)
    return _cost(params, splits(64 * 2 * UPDATES), 2 * UPDATES)


def classes(count: int) -> Cost:
    """Updates of a ResNet-18, 32 wide, over batches of 128 images of 32 px."""
    params = TrainStepParams(model="resnet18", width=32, batch_size=128, optimizer="sgd", max_lr=0.01, epochs=1)
    return _cost(params, splits(128 * 2 * UPDATES, num_classes=count), 2 * UPDATES)


AXES: dict[str, tuple[Callable[[int], Cost], tuple[int, ...], str]] = {
    "images": (images, (1_000, 5_000, 20_000, 100_000, 500_000), "s an epoch"),
    "patch_size": (patch_size, (2, 4, 8, 16), f"s for {UPDATES} updates"),
    "classes": (classes, (10, 30, 100, 300, 1_000), f"s for {UPDATES} updates"),
}


def _cost(params: TrainStepParams, data: Splits, updates: int = 0) -> Cost:
    """The cost of a whole epoch, or if `updates` > 0, of the second half of `updates` updates."""
    where = device.choose("auto")
    training = Recipe(params, data, where, device.choose_precision("auto", where)).one_cycle(0.01)
    started, most = now(), 0.0
    for number, _ in enumerate((event for event in training.events() if isinstance(event, StepEnd)), 1):
        most = max(most, _own_memory())
        if number == updates // 2:
            started = now()
        if number == updates:
            break
    return Cost(now() - started, most)


def _own_memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MEBI
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def main() -> None:
    """Measures all points, prints the tables and draws the figure."""
    measured: dict[str, np.ndarray] = {}
    for axis, (_, values, unit) in AXES.items():
        seconds, memory = measured[axis] = np.array([_measured(axis, value) for value in values]).T
        print(f"| {axis} | {' | '.join(f'{value:,}' for value in values)} | exponent |")
        print("|---" * (len(values) + 2) + "|")
        print(f"| {unit} | {' | '.join(f'{each:.2f}' for each in seconds)} | {_exponent(values, seconds):.2f} |")
        print(
            f"| MiB | {' | '.join(f'{each:,.0f}' for each in memory)} | {_exponent(values, memory):.2f} |\n", flush=True
        )
    _draw(measured)


def _exponent(values: Sequence[int], costs: np.ndarray) -> float:
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def _draw(measured: Mapping[str, np.ndarray]) -> None:
    """Draws the figure. `measured`: seconds and MiB, (2, points), by axis."""
    figure, panels = plt.subplots(1, len(AXES), figsize=(12, 3.4), sharey=True, layout="constrained")
    for panel, (axis, (_, values, unit)) in zip(panels, AXES.items(), strict=True):
        seconds, memory = measured[axis]
        for each, label, color in ((seconds, unit, "tab:blue"), (memory, "MiB", "tab:orange")):
            panel.loglog(values, each / each[0], marker="o", color=color, label=label)
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        exponents = f"time {_exponent(values, seconds):.2f}, memory {_exponent(values, memory):.2f}"
        panel.set(xlabel=axis, title=f"exponents: {exponents}")
        panel.legend()
    panels[0].set_ylabel("times that of the first point")
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / "growth.png", dpi=120)


def _measured(axis: str, value: int) -> Cost:
    command = [sys.executable, "-m", "benchmarks.growth", axis, str(value)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(json.dumps(AXES[sys.argv[1]][0](int(sys.argv[2]))))
