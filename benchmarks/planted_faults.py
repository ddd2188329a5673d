"""Tests whether the doctor finds planted faults: swapped labels, and copies, in a tree of links.

python -m benchmarks.planted_faults <folder> [--per_class 500] [--swapped 100] [--copies 50] [--name value ...]

The folder holds train/ and test/, or the class folders themselves. Copies go to test, or beside the originals. Other
arguments go to the step `doctor`. Faults that the images had before count as false alarms, so the true precision may be
higher.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow import MlflowClient
from PIL import Image, ImageEnhance
from PIL.Image import Resampling

from pipeline.models import timm_networks

PROJECT = Path(__file__).resolve().parent.parent
SEED = 0
TRAIN_TO_TEST = 5  # train images of a class for each test image, if not all images are used


def _jpeg(image: Image.Image, quality: int = 75) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()


def _halved(image: Image.Image) -> bytes:
    half = image.resize((image.width // 2, image.height // 2), Resampling.BICUBIC)
    return _jpeg(half.resize(image.size, Resampling.BICUBIC))


def _cropped(image: Image.Image) -> bytes:
    inner = image.crop((1, 1, image.width - 1, image.height - 1))
    return _jpeg(inner.resize(image.size, Resampling.BICUBIC))


COPIES: dict[str, Callable[[Path], bytes]] = {
    "as it is": Path.read_bytes,
    "quality 50": lambda path: _jpeg(Image.open(path), 50),
    "brighter by a quarter": lambda path: _jpeg(ImageEnhance.Brightness(Image.open(path)).enhance(1.25)),
    "halved and doubled": lambda path: _halved(Image.open(path)),
    "1 px off each side": lambda path: _cropped(Image.open(path)),
}


def main(arguments: list[str]) -> None:
    """Plants faults, runs the doctor by its command line, and prints recall and precision."""
    parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path)
    for name, default in (("--per_class", 0), ("--swapped", 100), ("--copies", 50)):
        parser.add_argument(name, type=int, default=default)
    asked, flags = parser.parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        swapped, copies = _plant(asked.source, folder / "photos", asked.per_class, asked.swapped, asked.copies)
        seconds, tables = _examined(folder, flags)
    print(f"{seconds:.0f} s\n\n| fault | planted | named | recall | precision |\n|---|---|---|---|---|")
    if "suspect_labels.csv" in tables:
        _print_labels(tables["suspect_labels.csv"]["image"].tolist(), swapped)
    _print_copies(tables["duplicates.csv"], copies)


def _examined(folder: Path, flags: list[str]) -> tuple[float, dict[str, pd.DataFrame]]:
    """The seconds that the doctor takes for the photos in `folder`, and the tables that it writes."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    (cache := folder / "cache" / "classifier-pipeline").mkdir(parents=True)
    (cache / "weights").symlink_to(timm_networks.weights_folder())
    asked = ["--dataset", "folder", "--data_dir", str(folder / "photos"), *flags]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline", "doctor", *asked], cwd=folder, env=environment, check=True)
    seconds = time.perf_counter() - started
    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    (stored,) = client.search_runs(["0"], "tags.step = 'doctor'")
    paths = [file.path for file in client.list_artifacts(stored.info.run_id) if file.path.endswith(".csv")]
    fetch = client.download_artifacts
    return seconds, {path: pd.read_csv(fetch(stored.info.run_id, path, str(folder))) for path in paths}


def _plant(
    source: Path, tree: Path, per_class: int, num_swapped: int, num_copies: int
) -> tuple[set[str], pd.DataFrame]:
    """Links the images into `tree`. Returns the names with a swapped label, and the copies: image, twin, how."""
    draw = np.random.default_rng(SEED)
    has_parts = (source / "train").is_dir()
    train = _link(source, tree, "train" if has_parts else "", per_class)
    if has_parts:
        _link(source, tree, "test", -(-per_class // TRAIN_TO_TEST))
    classes = sorted({path.parent.name for path in train})
    chosen = [train[place] for place in draw.choice(len(train), num_swapped + num_copies, replace=False)]
    swapped = set()
    for path in chosen[:num_swapped]:
        other = str(draw.choice([name for name in classes if name != path.parent.name]))
        moved = path.rename(path.parent.parent / other / f"{path.parent.name}_{path.name}")
        swapped.add(moved.relative_to(tree).as_posix())
    ways = [*COPIES][not has_parts :]  # within a class, exact copies are no test of anything
    rows = []
    for number, path in enumerate(chosen[num_swapped:]):
        how = ways[number % len(ways)]
        folder = tree / "test" / path.parent.name if has_parts else path.parent
        copy = folder / f"copy_{path.stem}.jpg"
        copy.write_bytes(COPIES[how](path))
        rows.append((copy.relative_to(tree).as_posix(), path.relative_to(tree).as_posix(), how))
    return swapped, pd.DataFrame(rows, columns=["image", "twin", "how"])


def _link(source: Path, tree: Path, part: str, per_class: int) -> list[Path]:
    links = []
    for folder in sorted(path for path in (source / part).iterdir() if path.is_dir()):
        files = sorted(path for path in folder.iterdir() if path.is_file())
        (tree / part / folder.name).mkdir(parents=True)
        for file in files[: per_class or None]:
            links.append(tree / part / folder.name / file.name)
            links[-1].symlink_to(file.resolve())
    return links


def _print_labels(named: list[str], swapped: set[str]) -> None:
    """Prints how many of the `swapped` images are among the suspect ones, `named` by the doctor, the surest first."""
    for wanted in (len(named), len(swapped), 5 * len(swapped)):
        first = named[:wanted]
        found = len(swapped.intersection(first))
        what = "swapped labels" if wanted == len(named) else f"the first {wanted} named"
        print(f"| {what} | {len(swapped)} | {len(first)} | {found / len(swapped):.0%} | {_share(found, len(first))} |")


def _print_copies(pairs: pd.DataFrame, copies: pd.DataFrame) -> None:
    """Prints how many of the planted `copies` are among the `pairs` of duplicates that the doctor named."""
    if (copies["image"].str.startswith("test/")).all():
        pairs = pairs[(pairs["image_split"] == "test") & (pairs["twin_split"] != "test")]
    planted = {frozenset(pair): how for *pair, how in copies[["image", "twin", "how"]].itertuples(index=False)}
    near = pairs[pairs["kind"] == "near"]
    for what, named in (("exact", pairs[pairs["kind"] == "exact"]), ("near", near), ("near, the first", near)):
        wanted = [pair for pair, how in planted.items() if (how == "as it is") == (what == "exact")]
        first = named.head(len(wanted)) if what == "near, the first" else named
        hits = sum(pair in map(frozenset, first[["image", "twin"]].to_numpy()) for pair in wanted)
        recall, precision = _share(hits, len(wanted)), _share(hits, len(first))
        print(f"| copies, {what} | {len(wanted)} | {len(first)} | {recall} | {precision} |")
    found = {frozenset(pair) for pair in pairs[["image", "twin"]].to_numpy()}
    for how in dict.fromkeys(planted.values()):
        are_found = [pair in found for pair, way in planted.items() if way == how]
        print(f"| ... {how} | {len(are_found)} | | {sum(are_found)} found | |")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none named"


if __name__ == "__main__":
    main(sys.argv[1:])
