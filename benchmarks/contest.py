"""Starts contenders once and asks them for laps in turns, so that other load on the machine affects all of them."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LEAVING_SECONDS = 30
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Rates:
    """The rates of a contender, one per lap."""

    laps: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.laps)

    def __format__(self, numbers: str) -> str:
        low, middle, high = (
            format(value, numbers or ",.0f") for value in (min(self.laps), self.median, max(self.laps))
        )
        return f"{middle} ({low} to {high})"


def hold(contenders: Mapping[str, Sequence[str]], rounds: int, units: Mapping[str, int]) -> dict[str, Rates]:
    """The rates of `contenders` (name -> module and arguments) in `rounds` laps. `units`: work units per lap, by name.

    Only one of them runs at any time. Raises RuntimeError if one of them ends too early.
    """
    running = {name: Contender(name, command) for name, command in contenders.items()}
    try:
        for contender in running.values():
            contender.start()
        laps: dict[str, list[float]] = {name: [] for name in running}
        for turn in range(rounds):
            # Each round has another order, so that no contender always follows the same one.
            names = list(running)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                laps[name].append(running[name].lap(units[name]))
        return {name: Rates(tuple(each)) for name, each in laps.items()}
    finally:
        for contender in running.values():
            contender.end()


class Contender:
    """A process that works on request."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process; a pipe would fill up

    def start(self) -> None:
        """Starts the process, and waits until it has warmed up."""
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self._answer()

    def lap(self, units: int) -> float:
        """The rate of a lap of `units` of work."""
        assert self._process is not None and self._process.stdin is not None
        print(units, file=self._process.stdin, flush=True)
        return float(self._answer()["rate"])  # type: ignore[arg-type]

    def end(self) -> None:
        """Ends the process. When its input closes, it cleans up and exits; after 30 s it is killed."""
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _answer(self) -> dict[str, object]:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self._errors.seek(0)
        raise RuntimeError(f"{self.name} ended: {self._errors.read()[-2000:]}")
