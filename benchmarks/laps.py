"""The clock of a contender, in a process of its own: it runs while it is asked to, and waits while others do."""

import json
import sys
import time

import torch

WARM_UP = 3  # units of work before the first lap: kernels are compiled, caches filled


class Laps:
    """Counts what a contender does, and tells the rate of every lap that it is asked for."""

    def __init__(self) -> None:
        self._units = self._wanted = 0
        self._amount = 0.0
        self._started = 0.0

    def __call__(self, amount: float) -> None:
        """To be called after each unit of work, `amount` images or operations; ends the process after the last lap."""
        self._units += 1
        self._amount += amount
        if self._units == (self._wanted or WARM_UP):
            ended = now()
            _tell({"rate": self._amount / (ended - self._started)} if self._wanted else {"ready": True})
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self._units, self._amount, self._wanted = 0, 0.0, int(line)
        self._started = now()


def now() -> float:
    """Seconds, read once the accelerator, where there is one, has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def _tell(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)
