"""Runs the contests: python -m benchmarks [name ...]. The names are keys of CONTESTS; without names, all run.

Prints each Markdown row when it is ready, and writes build/benchmarks.md and a figure per model. Rates are medians
(lowest to highest). PHOTOS=<number> sets the number of generated photos for `predicting` and `features`.
PHOTOS=<class folders of photos> uses 1,000 of those photos instead, and `predicting` then uses the default network for
folders of photos.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import contest
from benchmarks.contest import PROJECT, Rates
from benchmarks.photo_folders import link_photos
from benchmarks.predicting import write_photos
from benchmarks.synthetic import write_folder
from benchmarks.training import BATCH
from pipeline import models

OUT = PROJECT / "build"
ROUNDS = 5
MODELS = ("resnet18", "resnet9", "vit")
PEERS: dict[str, dict[str, float]] = {  # the ratio to the peer's rate that the pipeline must reach
    "notebook": {"resnet18": 3, "resnet9": 3, "vit": 3},
    "lightning": {"resnet18": 1.2, "resnet9": 1.2, "vit": 1.2},
    "bare": {"resnet18": 1.25, "resnet9": 1.25, "vit": 1.15},
    "bare_blocks_kept": {"resnet18": 0.97, "resnet9": 0.97, "vit": 0.97},
}
UPDATES, NOTEBOOK_UPDATES, PRODUCTS = 4, 2, 10  # per lap
PHOTOS = os.environ.get("PHOTOS", "4000")  # number of photos to generate, or a folder of class folders
REAL_PHOTOS = 1000  # photos used from such a folder
Row = tuple[str, str, str, float, str]


def training() -> Iterator[Row]:
    """Training in images per second, and its share of the speed of the machine's matrix products."""
    for model in MODELS:
        contenders = {name: ("benchmarks.training", name, model) for name in ("pipeline", *PEERS, "product")}
        units = dict.fromkeys(contenders, UPDATES) | {"notebook": NOTEBOOK_UPDATES, "product": PRODUCTS}
        rates = contest.hold(contenders, ROUNDS, units)
        _draw(model, {name: each for name, each in rates.items() if name != "product"})
        yield from _beside(f"{model}, images/s", rates, {peer: least[model] for peer, least in PEERS.items()})
        ours = Rates(tuple(rate * _flops(model) / 1e9 for rate in rates["pipeline"].laps))
        product = Rates(tuple(rate / 1e9 for rate in rates["product"].laps))
        yield (f"{model}, GFLOP/s", f"{ours}", f"product: {product}", ours.median / product.median, ">= 0.75")


def compiling() -> Iterator[Row]:
    """Compiled updates, next to updates that are not compiled."""
    for model in MODELS:
        contenders = {name: ("benchmarks.training", name, model) for name in ("compiled", "untracked")}
        rates = contest.hold(contenders, 3, dict.fromkeys(contenders, UPDATES))
        ours, plain = rates["compiled"], rates["untracked"]
        yield (f"{model} compiled, images/s", f"{ours}", f"as it is: {plain}", ours.median / plain.median, "")


def tracking() -> Iterator[Row]:
    """Epochs with tracking and saved states, next to the loop alone. Uses the fast network: its epochs are short."""
    contenders = {name: ("benchmarks.training", name, "fast") for name in ("pipeline", "untracked")}
    rates = contest.hold(contenders, 3, dict.fromkeys(contenders, 88))
    ours, alone = rates["pipeline"], rates["untracked"]
    yield (
        "tracking and a state per epoch, images/s",
        f"{ours}",
        f"neither: {alone}",
        ours.median / alone.median,
        ">= 0.98",
    )


def parts() -> Iterator[Row]:
    """Augmentation, evaluation and explanation, next to the usual ways."""
    contests: tuple[tuple[str, str, str, float, tuple[int, int]], ...] = (
        ("augmentation, images/s", "augment_batches", "augment_one_by_one", 10, (200, 20)),
        ("evaluation, images/s", "evaluate", "forward", 0.95, (1, 1)),
        ("explain 64 images, images/s", "explain", "grad_cam_one_by_one", 4, (3, 1)),
    )
    for what, ours, peer, least, units in contests:
        contenders = {name: ("benchmarks.parts", name) for name in (ours, peer)}
        rates = contest.hold(contenders, ROUNDS, dict(zip(contenders, units, strict=True)))
        yield (what, f"{rates[ours]}", f"{peer}: {rates[peer]}", rates[ours].median / rates[peer].median, f">= {least}")


def predicting() -> Iterator[Row]:
    """Predicting a folder of photos, next to its two halves alone, and to both halves one after the other."""
    with _photos() as (folder, number):
        trained_on = [] if PHOTOS.isdecimal() else [str(folder)]
        names = ("predict", "decode", "forward")
        contenders = {name: ("benchmarks.predicting", name, str(folder), *trained_on) for name in names}
        rates = contest.hold(contenders, ROUNDS, dict.fromkeys(contenders, 1))
    ours, what = rates["predict"], f"predict {number:,} photos, images/s"
    for peer in ("decode", "forward"):
        yield (what, f"{ours}", f"{peer} alone: {rates[peer]}", ours.median / rates[peer].median, "")
    both = 1 / (1 / rates["decode"].median + 1 / rates["forward"].median)
    yield (what, f"{ours}", f"one after the other: {both:,.0f}", ours.median / both, ">= 0.8")


def features() -> Iterator[Row]:
    """Computing the features of photos for a first probe, next to bare loops."""
    with _photos() as (folder, number):
        contenders = {name: ("benchmarks.features", name, str(folder)) for name in ("probe", "workers", "threads")}
        rates = contest.hold(contenders, ROUNDS, dict.fromkeys(contenders, 1))
    ours, fastest = rates["probe"], max(("workers", "threads"), key=lambda name: rates[name].median)
    for peer in ("workers", "threads"):
        wanted = ">= 0.9" if peer == fastest else ""
        beside = f"bare loop, {peer}: {rates[peer]}"
        yield (f"features of {number:,} photos/s", f"{ours}", beside, ours.median / rates[peer].median, wanted)


@contextmanager
def _photos() -> Iterator[tuple[Path, int]]:
    """A folder of class folders that exists inside this context, and its number of photos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if PHOTOS.isdecimal():
            write_photos(folder, int(PHOTOS))
            yield folder, int(PHOTOS)
        else:
            yield folder, link_photos(folder, Path(PHOTOS).expanduser(), REAL_PHOTOS)


def start() -> Iterator[Row]:
    """Seconds to the first update and to the splits. Each time is from a new process; the first one does not count."""
    with tempfile.TemporaryDirectory() as folder:
        seconds: dict[str, list[float]] = {"imports": [], "first_update": []}
        for _ in range(ROUNDS + 1):
            for what, each in seconds.items():
                each.append(_seconds(folder, what))
    ours, alone = (Rates(tuple(each[1:])) for each in (seconds["first_update"], seconds["imports"]))
    yield ("to the first update, s", f"{ours:.1f}", f"imports: {alone:.1f}", ours.median / alone.median, "<= 1.25")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        write_folder(images, 60_000)
        splits = Rates(tuple([_seconds(folder, "splits", str(images)) for _ in range(ROUNDS + 1)][1:]))
    yield ("to the splits of 60,000 cached images, s", f"{splits:.2f}", "", splits.median, "<= 2 s")


CONTESTS: dict[str, Callable[[], Iterator[Row]]] = {
    "training": training,
    "compiling": compiling,
    "tracking": tracking,
    "parts": parts,
    "predicting": predicting,
    "features": features,
    "start": start,
}


def _beside(what: str, rates: dict[str, Rates], peers: dict[str, float]) -> Iterator[Row]:
    ours = rates["pipeline"]
    for peer, least in peers.items():
        yield (what, f"{ours}", f"{peer}: {rates[peer]}", ours.median / rates[peer].median, f">= {least}")


def _seconds(folder: str, *what: str) -> float:
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "XDG_CACHE_HOME": folder,
        "XDG_STATE_HOME": folder,
    }
    command = [sys.executable, "-m", "benchmarks.start_up", *what]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    return float(done.stdout.splitlines()[0])


def _flops(model: str) -> float:
    """Floating-point operations per image of a forward and backward pass."""
    network = models.build(model, num_classes=10, image_size=32)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 2


def _draw(model: str, rates: dict[str, Rates]) -> None:
    figure, axes = plt.subplots(figsize=(7, 2.6), layout="constrained")
    names = list(rates)[::-1]
    medians = [rates[name].median for name in names]
    low = [rates[name].median - min(rates[name].laps) for name in names]
    high = [max(rates[name].laps) - rates[name].median for name in names]
    axes.barh(names, medians, xerr=(low, high), color=["tab:blue" if name == "pipeline" else "0.7" for name in names])
    axes.set(xlabel=f"training images/s, {model}, batches of {BATCH}: median, lowest and highest of {ROUNDS} laps")
    figure.savefig(OUT / f"benchmark_{model}.png", dpi=120)
    plt.close(figure)


def _machine() -> str:
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores of {processor}"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return f"{where}, torch {torch.__version__}, commit {commit.stdout.strip()}, {date.today()}"


def main(asked: list[str]) -> None:
    """Runs the contests in `asked`, or all if it is empty."""
    OUT.mkdir(exist_ok=True)
    lines = [_machine(), "", "| what | pipeline | beside | ratio | wanted |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    for name in asked or CONTESTS:
        for what, ours, peer, ratio, wanted in CONTESTS[name]():
            lines.append(f"| {what} | {ours} | {peer} | {ratio:.2f} | {wanted} |")
            print(lines[-1], flush=True)
    (OUT / "benchmarks.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
