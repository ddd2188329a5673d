"""The clock of a contender, which is a separate process: it works on request, and waits while others work."""

import json
import sys
import time

import torch

WARM_UP = 3  # units of work before the first lap: they compile kernels and fill caches


class Laps:
    """Counts the work of a contender, and prints the rate of every lap that was requested."""

    def __init__(self) -> None:
        self._units = self._wanted = 0
        self._amount = 0.0
        self._started = 0.0

    def __call__(self, amount: float) -> None:
        """Call this after each unit of work, with its `amount` of images or operations. Exits after the last lap."""
        self._units += 1
        self._amount += amount
        if self._units == (self._wanted or WARM_UP):
            ended = now()
            _send({"rate": self._amount / (ended - self._started)} if self._wanted else {"ready": True})
            self._wait()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        self._units, self._amount, self._wanted = 0, 0.0, int(line)
        self._started = now()


def now() -> float:
    """The time in seconds, after the accelerator, if there is one, has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def _send(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)
