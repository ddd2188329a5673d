"""Estimates the time left from the measured pace. There is no estimate while the pace is unknown."""

import math

LEAST_SECONDS = 2  # shortest measurement of a pace that is used


class Pace:
    """Seconds per unit, measured from the first unit on, because the time before it is set-up."""

    def __init__(self, least: float = 2) -> None:
        self._least = least  # least number of units before a pace is used
        self._first: tuple[float, float] | None = None
        self.seconds: float | None = None  # per unit; None until it is known

    def see(self, done: float, now: float) -> None:
        """Records that `done` units are finished at time `now` (s, of a monotonic clock)."""
        if self._first is None:
            self._first = done, now
        units, seconds = done - self._first[0], now - self._first[1]
        if units >= self._least and seconds >= LEAST_SECONDS:
            self.seconds = seconds / units


def duration(seconds: float) -> str:
    """Seconds as `1:05` or `2:03:00`, rounded up."""
    minutes, whole = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def left(seconds: float, num_unknown: int) -> str:
    """Text such as `1:20 + 2 steps`: the known time left, and the number of steps whose time is unknown."""
    known = [duration(seconds)] if seconds > 0 else []
    unknown = [f"{num_unknown} step{'s' if num_unknown > 1 else ''}"] if num_unknown else []
    return " + ".join([*known, *unknown])
