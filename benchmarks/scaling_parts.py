"""Measures the parts from which docs/scaling.md calculates: python -m benchmarks.scaling_parts <part> ...

networks: bytes of gradients. decoding: photos per second of a core. sweep: time of a trial, and of its database, with
1, 2 and 16 workers. tracking: calls per epoch, and the server's time for each. files: megabytes of a run.

It measures processor time and not clock time, because other work on the machine changes that less. It needs
PostgreSQL.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import optuna
import psutil
import requests
from mlflow import MlflowClient
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from benchmarks.predicting import write_photos
from benchmarks.spark_cluster import free_port
from deploy.postgres import Postgres
from pipeline import models
from pipeline.data.decoder import decode
from pipeline.training.costs import measure

NETWORKS = ("resnet18", "resnet9", "vit", "timm/tf_efficientnet_lite0", "timm/resnet50", "timm/vit_base_patch16_224")
SIZES = {"timm": 224, "own": 32}  # px
WORKERS = (1, 2, 16)
TRIALS = 40  # beside one per worker, with which the workers start
TINY = ["--experiment=none", "--limit_train=60", "--limit_test=20", "--batch_size=16", "--optimizer=sgd"]
SPACE = f"--space={json.dumps({'max_lr': {'low': 0.01, 'high': 0.1, 'log': True}})}"


def networks() -> None:
    for name in NETWORKS:
        size = SIZES["timm" if "/" in name else "own"]
        costs = measure(models.outline(name, num_classes=10, image_size=size), size)
        print(
            f"{name}: {costs['parameters'] / 1e6:.2f} M parameters, {4 * costs['parameters'] / 1e6:.1f} MB of gradients"
        )


def decoding() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), 200)
        paths = sorted(map(str, Path(folder).rglob("*.jpg")))
        started = time.process_time()
        for path in paths:
            decode(path, 224)
        seconds = time.process_time() - started
        print(f"{len(paths) / seconds:.0f} photos of 640 x 480 px per second of a core, to 224 px")


def sweep() -> None:
    with tempfile.TemporaryDirectory(prefix="pipeline-scaling-") as name:
        folder = Path(name)
        (folder / "database").mkdir()
        folder.chmod(0o711)  # PostgreSQL's user must pass through
        with Postgres(folder / "database", free_port()) as server:
            runs = server.new_database("runs")
            MlflowClient(runs).search_experiments()
            for number in WORKERS:
                _sweep(folder, runs, server.new_database(f"trials{number}"), number)


def _sweep(folder: Path, runs: str, storage: str, workers: int) -> None:
    """Prints the processor time of a trial, of the workers and of PostgreSQL, while all workers run trials.

    It begins when each worker has ended a trial, because a worker starts with seconds of imports.
    """
    total = TRIALS + 4 * workers
    study = [SPACE, "--study_name=s", "--sampler=random", f"--num_trials={total}", f"--storage={storage}"]
    words = [*TINY, "--width=4", "--epochs=1", *study, f"--sweep_workers={workers}"]
    process = _start("sweep", words, folder, runs)
    watched = RDBStorage(storage)
    first = _when(folder, watched, process, lambda ended: len({_process(trial) for trial in ended}) == workers)
    last = _when(folder, watched, process, lambda ended: len(ended) >= total - workers)
    process.communicate()
    watched.engine.dispose()
    done = last["done"] - first["done"]
    busy, of_database, passed = (last[name] - first[name] for name in ("busy", "database", "clock"))
    by_clock = passed * min(len(os.sched_getaffinity(0)), workers) / done
    print(f"{workers} workers: {busy / done:.2f} s of a core per trial ({by_clock:.2f} by the clock)", end=", ")
    print(
        f"{of_database / done * 1e3:.0f} ms of the database's; {done:.0f} trials, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _when(
    folder: Path,
    storage: RDBStorage,
    process: subprocess.Popen[str],
    is_so: Callable[[list[FrozenTrial]], bool],
) -> dict[str, float]:
    """Waits until `is_so` holds for the trials that have ended. Returns their number, and the seconds used so far."""
    while process.poll() is None:
        try:
            trials = optuna.load_study(study_name="s", storage=storage).get_trials(deepcopy=False)
        except KeyError:  # the workers create it
            trials = []
        ended = [trial for trial in trials if trial.state.is_finished()]
        if is_so(ended):
            servers = [each for each in psutil.process_iter(["cmdline"]) if _is_of(each, folder / "database")]
            return {
                "done": len(ended),
                "busy": _seconds([psutil.Process(process.pid)]),
                "database": _seconds(servers),
                "clock": time.monotonic(),
            }
        time.sleep(0.5)
    raise RuntimeError(process.communicate()[1][-2000:])


def _process(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("process", {}).get("process.pid"))


def tracking() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        words = f"--host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///{name}/runs.db"
        words += f" --artifacts-destination {name}/artifacts"
        variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = [sys.executable, "-m", "mlflow", "server", *words.split()]
        calm = subprocess.DEVNULL
        server = subprocess.Popen(command, cwd=folder, env=variables, stdout=calm, stderr=calm)
        try:
            uri = f"http://127.0.0.1:{port}"
            while not _answers(f"{uri}/health"):
                time.sleep(0.5)
            at = (folder, uri, server)
            trained = [_tracked(*at, "train", "--max_lr=0.01", f"--epochs={each}") for each in (2, 12)]
            swept = [_tracked(*at, "sweep", SPACE, "--epochs=1", f"--num_trials={each}") for each in (2, 8)]
        finally:
            for each in (*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)):
                each.terminate()
            server.wait()
    _print_each("epoch of a training", trained[0], trained[1], 10)
    _print_each("trial of one epoch", swept[0], swept[1], 6)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _print_each(what: str, few: "Tracked", many: "Tracked", number: int) -> None:
    """Prints what one of `number` more epochs or trials costs."""
    calls, megabytes = many.calls.total() - few.calls.total(), (many.size - few.size) / 1e6
    print(f"for each {what}: {calls / number:.1f} calls, {megabytes / number:.2f} MB; {few.calls.total()} in the first")
    per_call = (few.seconds + many.seconds) / (few.calls + many.calls).total()
    print(f"  server: {per_call * 1e3:.0f} ms of a core per call; {many.calls.most_common(4)}", flush=True)


class Tracked(NamedTuple):
    """A step's calls by path, the server's processor seconds for them, and the bytes of its artifacts."""

    calls: Counter[str]
    seconds: float
    size: int


def _tracked(folder: Path, uri: str, server: subprocess.Popen[bytes], step: str, *words: str) -> Tracked:
    before = _seconds([psutil.Process(server.pid)])
    size = _size(folder / "artifacts")
    program = (
        "import sys, requests, collections, re, json\n"
        "calls, send = collections.Counter(), requests.Session.request\n"
        "def count(self, method, url, *words, **named):\n"
        "    calls[method + ' ' + re.sub('[0-9a-f]{32}', 'RUN', url).rpartition('mlflow')[2][:40]] += 1\n"
        "    return send(self, method, url, *words, **named)\n"
        "requests.Session.request = count\n"
        "from pipeline.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "print('calls', json.dumps(calls)); sys.exit(status)\n"
    )
    process = _start(step, [*TINY, "--width=4", *words], folder, uri, "-c", program)
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err[-2000:])
    line = next(line for line in out.splitlines() if line.startswith("calls"))
    seconds = _seconds([psutil.Process(server.pid)]) - before
    return Tracked(Counter(json.loads(line.removeprefix("calls "))), seconds, _size(folder / "artifacts") - size)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def files() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width in ("16", "64"):
            words = [*TINY, "--epochs", "1", "--max_lr", "0.01", "--width", width]
            process = _start("train", words, folder, f"sqlite:///{name}/{width}.db")
            if process.wait():
                raise RuntimeError(process.communicate()[1][-2000:])
            costs = measure(models.outline("resnet18", num_classes=10, image_size=32, width=int(width)), 32)
            weights = 4 * costs["parameters"] / 1e6
            print(f"resnet18, {weights:.1f} MB of weights: {_size(folder / 'mlruns') / 1e6:.1f} MB of files")
            subprocess.run(["rm", "-r", str(folder / "mlruns")], check=True)


def _start(step: str, words: list[str], folder: Path, uri: str, *program: str) -> subprocess.Popen[str]:
    variables = {"MLFLOW_TRACKING_URI": uri, "XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *(program or ("-m", "pipeline")), step, *words],
        cwd=folder,
        env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _seconds(roots: list[psutil.Process]) -> float:
    """The processor seconds of living processes and of all below them."""
    return sum(_own_seconds(each) for root in roots for each in (root, *root.children(recursive=True)))


def _is_of(process: psutil.Process, folder: Path) -> bool:
    return str(folder) in " ".join(process.info["cmdline"] or [])


def _own_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


PARTS: dict[str, Callable[[], None]] = {each.__name__: each for each in (networks, decoding, sweep, tracking, files)}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        print(f"== {part}", flush=True)
        PARTS[part]()
