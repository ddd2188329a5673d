"""Checks and measures everything that needs a graphics card, in under ten minutes: python -m benchmarks.gpu [check ...]

The checks are keys of CHECKS; without names, all run. Prints a Markdown table, and writes build/gpu.md and
build/gpu.json. Each check is a process of its own, so that an error of the card does not reach the next one.
CIFAR10=<class folders of CIFAR-10> is needed for the time to 94 %. Without a card: one line, and status 2.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import mlflow
import torch

from benchmarks import record
from benchmarks.contest import PROJECT
from benchmarks.gpu_checks import IN_PROCESS, Row, Scale
from pipeline.training import device

OUT = PROJECT / "build"
SECONDS = 590  # for all checks together
CARD_GIB = 1.0  # of the card, for the sweep in which one trial needs more
SWEEP = {"model": "resnet9", "batch_size": 512, "epochs": 1, "num_trials": 4, "sampler": "grid", "study_name": "memory"}
SPACE = {"width": [256, 4], "max_lr": [0.01, 0.02]}
TO_94 = 0.94
Command = Callable[[torch.device], Iterator[Row]]


def kernel(where: torch.device) -> Iterator[Row]:
    """One kernel, and the experiment that `make run` starts."""
    yield Row("device", device.describe(where))
    started = time.perf_counter()
    status = _pipeline("main", "--device", str(where))[0]
    yield Row("make run", f"status {status}, {time.perf_counter() - started:.0f} s", "status 0", status == 0)


def resume(where: torch.device) -> Iterator[Row]:
    """Kills a training on one device and resumes it on another, in both directions."""
    for first, then in ((str(where), "cpu"), ("cpu", str(where))):
        with tempfile.TemporaryDirectory() as folder:
            words = ("--model", "resnet9", "--width", "16", "--epochs", "6", "--max_lr", "0.02", "--precision", "fp32")
            process = _start(folder, "train", *words, "--device", first)
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("epoch 2"):
                    break
            process.send_signal(signal.SIGKILL)
            process.wait()
            status, said = _pipeline("train", "--resume", "auto", *words, "--device", then, folder=folder)
        found = re.findall(r"going on with run \w+ after update \d+|training: .*|error: .*", said)
        is_met = status == 0 and "going on" in said
        yield Row(f"killed on {first}, resumed on {then}", "; ".join(found), "it goes on and ends", is_met)


def sweep(where: torch.device) -> Iterator[Row]:
    """A sweep in which some trials need more memory than the card has left: they fail alone, and the others do not."""
    words = [word for name, value in SWEEP.items() for word in (f"--{name}", str(value))]
    status, said = _pipeline("sweep", "--space", json.dumps(SPACE), *words, "--device", str(where), capped=True)
    failed = len(re.findall(r"failed: .*out of memory", said))
    last = said.strip().splitlines()[-1] if said.strip() else ""
    yield Row("sweep, one width out of memory", f"status {status}, {failed} failed; {last}", "2 of 4 fail", failed == 2)


def to_94(where: torch.device) -> Iterator[Row]:
    """The seconds and the test accuracy of experiments/cifar10_fast.yaml."""
    if not (folder := os.environ.get("CIFAR10")):
        yield Row("time to 94 %", "not measured: give CIFAR10=<class folders>")
        return
    with tempfile.TemporaryDirectory() as store:
        mlflow.set_tracking_uri(f"sqlite:///{store}/mlflow.db")
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{store}/mlflow.db"
        found = record.train(folder, seed=0)
    accuracy = found["test/accuracy_6_views"]
    value = f"{found['train_seconds']:.1f} s, {accuracy:.2%} with six views"
    yield Row("cifar10_fast", value, f">= {TO_94:.0%}", accuracy >= TO_94)


def tracked(where: torch.device) -> Iterator[Row]:
    """Images/s of whole tracked trainings, as the run logs them."""
    for model in ("resnet18", "resnet9", "vit"):
        words = ("--model", model, "--max_lr", "0.01", "--batch_size", "512", "--epochs", "20", "--device", str(where))
        status, said = _pipeline("train", *words)
        rates = [int(each.replace(",", "")) for each in re.findall(r"([\d,]+) images/s", said)]
        yield Row(f"{model}, digits, 512, tracked: images/s", f"{max(rates, default=0):,}", "status 0", status == 0)


COMMANDS: dict[str, Command] = {"kernel": kernel, "resume": resume, "sweep": sweep, "to_94": to_94, "tracked": tracked}
CHECKS = ("kernel", "waits", "formats", "maps", "resume", "sweep", "to_94", "tracked", "speed")


def main(asked: Sequence[str]) -> int:
    """Runs the checks in `asked`, or all if it is empty. Returns 0 if all is as wanted, 1 if not, 2 without a card."""
    if unknown := set(asked) - set(CHECKS):
        return _refuse(f"no check is called {', '.join(sorted(unknown))} (checks: {', '.join(CHECKS)})")
    if reason := device.why_unusable("cuda"):
        return _refuse(f"no graphics card can be used: {reason}")
    rows, ends = [], time.perf_counter() + SECONDS
    print("| what | value | wanted | met |\n|---|---|---|---|", flush=True)
    for name in asked or CHECKS:
        for row in _run(name, ends - time.perf_counter()):
            rows.append(row)
            print(_line(row), flush=True)
    write(rows, OUT)
    return int(any(row.is_met is False for row in rows))


def write(rows: Sequence[Row], folder: Path) -> None:
    """Writes the rows as `gpu.md` and `gpu.json`."""
    folder.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    title = f"torch {torch.__version__}, commit {commit.stdout.strip()}, {date.today()}"
    table = ["| what | value | wanted | met |", "|---|---|---|---|", *map(_line, rows)]
    (folder / "gpu.md").write_text("\n".join([title, "", *table]) + "\n")
    (folder / "gpu.json").write_text(json.dumps({"of": title, "rows": [row._asdict() for row in rows]}, indent=2))


def _run(name: str, seconds: float) -> list[Row]:
    """The rows of a check, which a process of its own runs for at most `seconds`."""
    if seconds <= 0:
        return [Row(name, "not run: no time was left", "", False)]
    command = [sys.executable, "-m", "benchmarks.gpu", "--check", name]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += "\nthe time was over"
    rows = [Row(**json.loads(line)) for line in out.splitlines() if line.startswith("{")]
    if process.returncode:
        reason = err.strip().splitlines()[-1] if err.strip() else f"status {process.returncode}"
        rows.append(Row(name, f"failed: {reason}", "", False))
    return rows


def _check(name: str, where: torch.device) -> None:
    rows = IN_PROCESS[name](where, Scale()) if name in IN_PROCESS else COMMANDS[name](where)
    for row in rows:
        print(json.dumps(row._asdict()), flush=True)


def _line(row: Row) -> str:
    met = {True: "yes", False: "NO", None: ""}[row.is_met]
    return f"| {row.what} | {row.value.replace('|', '/')} | {row.wanted} | {met} |"


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


def _start(folder: str, *words: str, capped: bool = False) -> "subprocess.Popen[str]":
    """`python -m pipeline word ...` with a store in `folder`; capped: it may use only CARD_GIB of the card."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "XDG_STATE_HOME": folder,
    }
    program = ["-c", CAPPED, str(CARD_GIB)] if capped else ["-m", "pipeline"]
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


CAPPED = """
import sys, torch
from pipeline.__main__ import main
if torch.cuda.is_available():
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(float(sys.argv[1]) * 2**30 / whole)
sys.exit(main(sys.argv[2:]))
"""


def _pipeline(*words: str, folder: str = "", capped: bool = False) -> tuple[int, str]:
    """The status and the output of a process as `_start` makes it."""
    with tempfile.TemporaryDirectory() as own:
        process = _start(folder or own, *words, capped=capped)
        said = process.communicate()[0]
    return process.returncode, said


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        torch.backends.cudnn.benchmark = True
        _check(sys.argv[2], torch.device("cuda"))
    else:
        sys.exit(main(sys.argv[1:]))
