"""Tests on this machine whether a killed and resumed training ends with the same bits as an undisturbed one.

python -m benchmarks.verify_resume [--num_kills 5] [--name value ...]   takes any parameter of the step `train`
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import click
from mlflow import MlflowClient

from pipeline import streams
from pipeline.__main__ import run_command
from pipeline.command_line import options
from pipeline.model_files import checkpoint
from pipeline.params import TrainParams, absolute
from pipeline.params.recipe import FILES, RUN
from pipeline.progress import conclude, say
from pipeline.resume import interrupts
from pipeline.settings import resolve
from pipeline.tracking import system_metrics
from pipeline.tracking.lifecycle import PROJECT
from pipeline.training.events import Failure

TIMINGS = {"images_per_second"}  # metrics that measure time, not the result
KILLED_AS_IT_STARTS = 0.2  # share of the kills during the start; the others hit the training itself
ELSEWHERE = {"MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"}  # would send runs to another place
TRAINS = re.compile(r"^(epoch|going on)", re.MULTILINE)  # the terminal shows this when the training has begun


class Times(NamedTuple):
    """Seconds from the start of a process to its first sign of training, and from there to its end."""

    start_up: float
    training: float


class Left(NamedTuple):
    """The results of a training and its evaluation: digests of files, and (step, value) of all points of all curves."""

    digests: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]


def main(arguments: Sequence[str]) -> int:
    """Runs the comparison with the parameters of the command line. Returns an exit status like `python -m pipeline`."""
    kills = click.Option(["--num_kills"], type=click.IntRange(1, 10_000), default=5, help="kills [5]")

    def compare(num_kills: int, **given: str | None) -> None:
        interrupts.raise_once()
        flags = {name: value for name, value in given.items() if value is not None}
        verify(resolve("train", flags).to(TrainParams), num_kills)

    command = click.Command("verify_resume", params=[kills, *options(TrainParams)], callback=compare, help=__doc__)
    with streams.guarded():
        return run_command(command, arguments, "python -m benchmarks.verify_resume")


def verify(params: TrainParams, num_kills: int) -> None:
    """Trains once undisturbed and once killed `num_kills` times, and compares. Raises Failure if they differ."""
    if params.device not in ("auto", "cpu"):
        raise ValueError(
            f"device={params.device}: two undisturbed trainings agree to the bit on the CPU alone; leave it out"
        )
    if params.weights.startswith(RUN):
        raise ValueError(
            f"weights={params.weights}: trainings are tried in a store of their own, which holds no other run; give a "
            "file of its weights"
        )
    with tempfile.TemporaryDirectory(prefix="pipeline-verify-") as folder:
        whole, killed = (Place(Path(folder) / name, params) for name in ("undisturbed", "killed"))
        say("training undisturbed")
        times = whole.train_to_the_end()
        expected = whole.left()
        say(f"{times.start_up:.0f} s to start, {times.training:.0f} s to train; now with kills at random moments")
        num_kills = killed.train_killed(num_kills, times, random.Random(params.seed))
        found = killed.left()
    differing = differences(expected, found)
    for name, digest in expected.digests.items():
        say(f"  {digest[:16]}  {name}  {'differs' if name in differing else 'equal'}")
    are_equal = not any(name in differing for name in expected.curves)
    say(f"  {len(expected.curves)} curves, every point: {'equal' if are_equal else 'differ'}")
    if differing:
        raise Failure(f"killed {num_kills} times, the training ended as another: {', '.join(differing)}")
    conclude(f"verdict: killed {num_kills} times, the training ended as the undisturbed one, to the bit")


def differences(expected: Left, found: Left) -> list[str]:
    """The names of files and curves that differ between the two, or that only one of them has."""
    ours, theirs = ({**left.digests, **left.curves} for left in (expected, found))
    return [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]


class Place:
    """A folder with its own tracking store, and the training in it."""

    def __init__(self, folder: Path, params: TrainParams) -> None:
        folder.mkdir()
        self._folder = folder
        self._log = folder / "log"
        self._client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in ELSEWHERE},
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "PYTHONPATH": str(PROJECT),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        given = TrainParams.model_fields.keys() - {"experiment", "from_study", "storage"}
        values = {**params.model_dump(include=set(given)), "data_dir": absolute(params.data_dir), "device": "cpu"}
        if params.weights.endswith(FILES):
            values["weights"] = absolute(params.weights)
        self._flags = [word for name, value in values.items() for word in (f"--{name}", str(value))]

    def train_to_the_end(self) -> Times:
        """Trains without a kill."""
        begun = time.monotonic()
        with self._training() as process:
            shown = self._wait_until_it_trains(process)
            self._end(process)
        return Times(shown - begun, time.monotonic() - shown)

    def train_killed(self, num_kills: int, times: Times, chance: random.Random) -> int:
        """Trains to the end, killed `num_kills` times, or fewer if the training ends first. Returns the number."""
        for kills in range(num_kills):
            with self._training() as process:
                if chance.random() < KILLED_AS_IT_STARTS:
                    moment = time.monotonic() + chance.uniform(0, times.start_up)
                else:
                    moment = self._wait_until_it_trains(process) + chance.uniform(0, 2 * times.training / num_kills)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, moment - time.monotonic()))
                    self._end(process)
                    return kills
        with self._training() as process:
            self._end(process)
        return num_kills

    def left(self) -> Left:
        """The results of the training. Evaluates first, so that they include predictions."""
        with self._started("evaluate", "--device", "cpu") as process:
            self._end(process)
        # There may be several runs, and the newest counts: a training killed before its first state starts anew, and
        # one killed after its end ends twice.
        training, evaluation = (
            self._client.search_runs(["0"], f"tags.step = '{step}' and attributes.status = 'FINISHED'")[0]
            for step in ("train", "evaluate")
        )
        files = {
            "weights/best.safetensors": training,
            "weights/last.safetensors": training,
            "steps.csv": training,
            "predictions.csv": evaluation,
        }
        digests = {name: self._digest(run.info.run_id, name) for name, run in files.items()}
        curves = {
            name: [(point.step, point.value) for point in self._client.get_metric_history(training.info.run_id, name)]
            for name in training.data.metrics.keys() - TIMINGS
            if not name.startswith(system_metrics.GROUP)
        }
        return Left(digests, curves)

    def _training(self) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        return self._started("train", "--experiment", "none", "--resume", "auto", *self._flags)

    @contextmanager
    def _started(self, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A process with its own session. The whole session is killed if the context ends before the process."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", *words],
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _wait_until_it_trains(self, process: "subprocess.Popen[bytes]") -> float:
        while process.poll() is None and not TRAINS.search(self._log.read_text(encoding="utf-8")):
            time.sleep(0.02)
        return time.monotonic()

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        if process.wait():
            raise Failure(f"a training failed: {self._log.read_text(encoding='utf-8').strip().splitlines()[-1]}")

    def _digest(self, run_id: str, name: str) -> str:
        path = Path(self._client.download_artifacts(run_id, name, str(self._folder)))
        return checkpoint.digest(path) if path.suffix == ".safetensors" else sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
