"""How long it will take: what is known to be left, at the rate it was seen to go; no number where that is not known."""

import math

MEASURED_SECONDS = 2  # before a rate is believed


class Pace:
    """Seconds per unit, measured from the first unit on, since things are set up before it."""

    def __init__(self, least: float = 2) -> None:
        self._least = least  # units that tell something
        self._first: tuple[float, float] | None = None
        self.seconds: float | None = None  # per unit; None until it is known

    def see(self, done: float, now: float) -> None:
        """Takes that `done` units are done at `now` (s, of a clock that only goes on)."""
        if self._first is None:
            self._first = done, now
        units, seconds = done - self._first[0], now - self._first[1]
        if units >= self._least and seconds >= MEASURED_SECONDS:
            self.seconds = seconds / units


def duration(seconds: float) -> str:
    """Seconds as `1:05` or `2:03:00`, rounded up."""
    minutes, whole = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def left(seconds: float, num_unknown: int) -> str:
    """`1:20 + 2 steps`: the time that is known to be left, and of how many steps it is not known."""
    known = [duration(seconds)] if seconds > 0 else []
    unknown = [f"{num_unknown} step{'s' if num_unknown > 1 else ''}"] if num_unknown else []
    return " + ".join([*known, *unknown])
