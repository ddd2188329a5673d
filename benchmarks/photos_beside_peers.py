"""Photos fine-tuned by default, beside what others' documentation shows: test accuracy and seconds, on the same files.

python -m benchmarks.photos_beside_peers DATA [--timm FOLDER] [--peers ENVIRONMENT] [--only NAME ...]
                                              [--photos N] [--epochs N]

DATA holds a folder of photos per class. The split that this project makes of it is written out as folders of links, and
everyone takes these. The seconds cover whole commands, from the start to the test accuracy. Only one runs at a time.
Peers run in their own virtual environment with the same torch (build/peers). The first start makes it.
benchmarks/peers.py has their commands. timm's package holds no training script: --timm names a folder with train.py
and validate.py of its repository, of the same version if possible. Starting weights are files below
~/.cache/classifier-pipeline/weights. --photos limits the photos of each class, and --epochs shortens every training:
both are for trying this script, not for a comparison. The table goes to build/photos_beside_peers.md and .json, the
output of the commands to build/photos_beside_peers/<name>.log.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import mlflow
import torch

from benchmarks.contest import PROJECT
from benchmarks.peers import PEERS
from benchmarks.photo_folders import write_split
from pipeline.data import quotas
from pipeline.data.cache import folder as cache_folder
from pipeline.results.metrics import accuracy_interval
from pipeline.training import device
from pipeline.training.photo_defaults import BACKBONE

OUT = PROJECT / "build"
LOGS = OUT / "photos_beside_peers"
SHARED_PACKAGES = ("torch", "torchvision", "timm")  # of the same version in both environments
OURS: dict[str, list[str]] = {"ours": [], "ours, probe alone": ["--steps", "probe,evaluate"]}


@dataclass
class Row:
    """The result of one library."""

    name: str
    version: str
    network: str
    settings: str
    documentation: str
    correct: int | None = None  # test photos; None if the library gave no result
    seconds: float | None = None
    note: str = ""


def main(given: argparse.Namespace) -> None:
    """Prints each row of the table as soon as its library is done, and writes the table to build/."""
    LOGS.mkdir(parents=True, exist_ok=True)
    asked = given.only or [*OURS, *PEERS]
    if not OURS.keys() >= {*asked}:
        _install(given.peers)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="beside-peers-") as name:
        counts = write_split(given.data, Path(name) / "photos", given.photos)
        number = counts["test"].total()
        table = [_heading(counts, given)]
        print(table[0], flush=True)
        for row in _rows(asked, Path(name), given, number):
            rows.append(row)
            table.append(_line(row, number))
            print(table[-1], flush=True)
    (OUT / "photos_beside_peers.md").write_text("\n".join(table) + "\n")
    found = {"test_photos": number, "rows": [asdict(row) for row in rows]}
    (OUT / "photos_beside_peers.json").write_text(json.dumps(found, indent=2))


def _rows(asked: Sequence[str], place: Path, given: argparse.Namespace, number: int) -> Iterator[Row]:
    weights = cache_folder() / "weights"
    for name in asked:
        folder = place / name.replace(" ", "-")
        folder.mkdir()
        if name in OURS:
            yield from _our_rows(name, folder, place / "photos", weights, given.epochs, number)
        else:
            yield _peer_row(name, folder, place / "photos", weights, given, number)


def _our_rows(name: str, folder: Path, photos: Path, weights: Path, epochs: int, number: int) -> Iterator[Row]:
    """A row per evaluation of the experiment that a folder of photos gets by default, its cache empty at first."""
    (folder / "cache" / cache_folder().name).mkdir(parents=True)
    (folder / "cache" / cache_folder().name / "weights").symlink_to(weights)
    uri = f"sqlite:///{folder}/mlflow.db"
    places = {"XDG_CACHE_HOME": f"{folder}/cache", "XDG_STATE_HOME": str(folder), "MLFLOW_TRACKING_URI": uri}
    words = [*OURS[name], *(["--epochs", str(epochs)] if epochs else [])]
    command = [sys.executable, "-m", "pipeline", "main", "--dataset", "folder", "--data_dir", str(photos), *words]
    seconds = _seconds(name, [command], folder, {"PYTHONPATH": str(PROJECT), **places})
    about = (_commit(), BACKBONE, " ".join(["defaults", *words]), "docs/photos.md")
    if seconds is None:
        yield Row(name, *about, note=_last_line(name))
        return
    runs = mlflow.MlflowClient(uri).search_runs(["0"], order_by=["attributes.start_time ASC"])
    by_id = {run.info.run_id: run for run in runs}
    for evaluation in (run for run in runs if run.data.tags.get("step") == "evaluate"):
        trained = by_id[evaluation.data.tags["train.run_id"]]
        valid = trained.data.metrics["weights/best_valid_accuracy"]
        correct = round(evaluation.data.metrics["test/accuracy"] * number)
        yield Row(name, *about, correct, seconds, f"{trained.data.tags['step']}: {valid:.2%} of validation")


def _peer_row(name: str, folder: Path, photos: Path, weights: Path, given: argparse.Namespace, number: int) -> Row:
    """The row of a peer. Without a result, its note says why."""
    peer, python = PEERS[name], given.peers / "bin" / "python"
    row = Row(name, _version(python, peer.package), peer.network, peer.settings, peer.documentation)
    row.note = peer.missing(weights, given.timm)
    if row.note:
        return row
    words = {
        "data": str(photos),
        "weights": str(weights / peer.weights),
        "epochs": str(given.epochs or peer.epochs),
        "classes": str(len([*(photos / "train").iterdir()])),
        "photos": str(number),
        "cores": str(quotas.cores()),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "out": str(folder),
        "scripts": str(given.timm),
    }
    commands = [[str(python), *(_filled(word, words) for word in command)] for command in peer.commands]
    row.seconds = _seconds(name, commands, folder, {"HF_HUB_OFFLINE": "1", "YOLO_CONFIG_DIR": str(folder)})
    # A progress bar may stand before CORRECT in its line.
    found = re.findall(r"CORRECT (\d+)", _log(name).read_text(errors="replace"))
    if row.seconds is not None and found:
        row.correct = int(found[-1])
    else:
        row.note = _last_line(name)
    return row


def _filled(word: str, words: Mapping[str, str]) -> str:
    """`word` with its placeholders filled in. A script of several lines stays unchanged."""
    return word if "\n" in word else word.format(**words)


def _seconds(
    name: str, commands: Sequence[Sequence[str]], folder: Path, environment: Mapping[str, str]
) -> float | None:
    """How long `commands` take one after the other, in `folder`; None if one fails. Their output goes to the log."""
    started = time.perf_counter()
    with _log(name).open("w") as log:
        for command in commands:
            print("$", *command, file=log, flush=True)
            done = subprocess.run(
                command, cwd=folder, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode:
                return None
    return time.perf_counter() - started


def _log(name: str) -> Path:
    return LOGS / f"{name.replace(' ', '-').replace(',', '')}.log"


def _last_line(name: str) -> str:
    lines = [line for line in _log(name).read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip().replace("|", "/") if lines else "no output"


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip()


def _version(python: Path, package: str) -> str:
    command = [str(python), "-c", f"from importlib.metadata import version; print(version('{package}'))"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _install(environment: Path) -> None:
    """Makes the virtual environment of the peers, unless it is there."""
    python = environment / "bin" / "python"
    if python.exists():
        return
    packages = [
        *(f"{name}=={version(name).partition('+')[0]}" for name in SHARED_PACKAGES),
        "fastai",
        "ultralytics-opencv-headless",
    ]
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), *packages], check=True)


def _heading(counts: Mapping[str, Counter[str]], given: argparse.Namespace) -> str:
    parts = ", ".join(f"{sum(each.values()):,} {part}" for part, each in counts.items())
    tried = f"; shortened to {given.epochs} epochs, which compares nothing" if given.epochs else ""
    where = device.describe(device.choose("auto"))
    columns = (
        "name",
        "version",
        "network",
        "settings",
        "test accuracy (95 % interval)",
        "seconds",
        "documentation",
        "note",
    )
    lines = (f"{given.data.name}: {parts} photos of {len(counts['train'])} classes{tried}; {where}; {date.today()}", "")
    return "\n".join([*lines, f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"])


def _line(row: Row, number: int) -> str:
    accuracy = seconds = ""
    if row.correct is not None and row.seconds is not None:
        low, high = accuracy_interval(row.correct, number)
        accuracy, seconds = f"{row.correct / number:.2%} ({low:.2%} to {high:.2%})", f"{row.seconds:.0f}"
    cells = (row.name, row.version, row.network, row.settings, accuracy, seconds, row.documentation, row.note)
    return f"| {' | '.join(cells)} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--timm", type=Path, default=OUT / "timm")
    parser.add_argument("--peers", type=Path, default=OUT / "peers")
    parser.add_argument("--only", nargs="+", choices=[*OURS, *PEERS])
    parser.add_argument("--photos", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=0)
    given = parser.parse_args()
    for name in ("data", "timm", "peers"):
        setattr(given, name, getattr(given, name).absolute())
    return given


if __name__ == "__main__":
    main(_arguments())
