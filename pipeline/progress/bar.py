"""One bar for all that a command does: the steps that are done, the one under way, the time left for all of them."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tqdm import tqdm

from pipeline.progress import messages
from pipeline.progress.time_left import Pace, left
from pipeline.text import visible

REFRESH_SECONDS = 0.5


class Part(NamedTuple):
    """A step of all that is to be done."""

    title: str
    step: str  # its kind: what takes as long as another of its kind
    epochs: int = 0  # passes over the train split, where it is a training


class Meter:
    """How far a step is, in units of its own."""

    def __init__(self, whole: "_Whole", total: float, done: float, pace: Pace) -> None:
        self.total = total
        self.done = done
        self.pace = pace
        self._whole = whole

    def advance(self, text: Callable[[], str]) -> None:
        """One unit more. `text` returns what stands beside the bar; it is called only twice a second."""
        self.at(self.done + 1, text)

    def at(self, done: float, text: Callable[[], str]) -> None:
        """`done` units, of the meter's total."""
        self.done = done
        self.pace.see(done, time.monotonic())
        self._whole.draw(text)

    @property
    def seconds_left(self) -> float | None:
        """Until the end, at the pace so far; None where that is not known."""
        return None if self.pace.seconds is None else max(0.0, self.total - self.done) * self.pace.seconds


class _Bar(tqdm):
    text = ""

    @property
    def format_dict(self) -> Any:
        return {**super().format_dict, "text": self.text}


class _Whole:
    """The steps in order, drawn where standard error is a terminal."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = list(parts)
        self._spent: dict[str, float] = {}  # seconds of a step, by its kind
        self._position = 0
        self._started = time.monotonic()
        self._drawn = 0.0
        self._meter: Meter | None = None
        self._is_aside = False
        self._per_epoch = 0  # updates
        self._update = Pace()
        is_worker = multiprocessing.parent_process() is not None  # which leaves the terminal to who started it
        self._bar = _Bar(
            total=len(self._parts),
            bar_format="{desc} |{bar}| {text}",
            disable=not sys.stderr.isatty() or is_worker,
            dynamic_ncols=True,
            leave=False,
            delay=REFRESH_SECONDS,  # the first time it is drawn below, with words beside it
        )
        self.draw()

    @contextmanager
    def step(self, position: int) -> Iterator[None]:
        """Within, that step is under way."""
        self._position, self._started, self._meter = position, time.monotonic(), None
        self.draw()
        yield
        self.ended(position, time.monotonic() - self._started)

    def ended(self, position: int, seconds: float | None) -> None:
        """That step has taken so long, as others of its kind will; None where that is not known."""
        if seconds is not None:
            self._spent[self._parts[position].step] = seconds
        self._position, self._meter = position + 1, None

    @contextmanager
    def metered(self, total: float, done: float, least: float, per_epoch: int) -> Iterator[Meter]:
        """A meter of the step under way."""
        pace = Pace(least)
        if per_epoch:
            self._per_epoch, self._update = per_epoch, pace
        self._meter = Meter(self, total, done, pace)
        try:
            yield self._meter
        finally:
            self._meter = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within, meters tell of what the step needs before it does its own."""
        self._is_aside = True
        try:
            yield
        finally:
            self._is_aside = False

    def draw(self, text: Callable[[], str] = str) -> None:
        """Shows where all is; not more than twice a second."""
        now = time.monotonic()
        if self._bar.disable or (self._meter is not None and now - self._drawn < REFRESH_SECONDS):
            return
        self._drawn = now
        title = self._parts[self._position].title
        count = f"{self._position + 1}/{len(self._parts)} " if len(self._parts) > 1 else ""
        self._bar.n = self._position + self._share()
        waiting = left(*self._left())
        self._bar.text = visible("  ".join(part for part in (f"{waiting} left" if waiting else "", text()) if part))
        self._bar.set_description_str(visible(count + title), refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.clear()  # tqdm, which did not draw it by its own count, would leave it
        self._bar.close()

    def _share(self) -> float:
        """How much of the step is done, from 0 to 1."""
        if self._meter is None or self._is_aside or not self._meter.total:
            return 0.0
        return min(1.0, self._meter.done / self._meter.total)

    def _left(self) -> tuple[float, int]:
        """Seconds that are known to be left, and the number of steps of which that is not known."""
        later = [self._expected(part) for part in self._parts[self._position + 1 :]]
        waiting = [self._left_of_step(), *later]
        is_all_there_is = len(self._parts) == 1 and not self._is_aside
        return sum(filter(None, waiting)), 0 if is_all_there_is else waiting.count(None)

    def _left_of_step(self) -> float | None:
        """Seconds of the step under way; None where that is not known."""
        current = self._parts[self._position]
        if self._meter is None:
            expected = self._spent.get(current.step)
            return None if expected is None else max(0.0, expected - (time.monotonic() - self._started))
        seconds, itself = self._meter.seconds_left, self._expected(current) if self._is_aside else 0.0
        return None if seconds is None or itself is None else seconds + itself

    def _expected(self, part: Part) -> float | None:
        """Seconds of a step that has not begun; None where that is not known."""
        if part.step in self._spent:
            return self._spent[part.step]
        if part.epochs and self._per_epoch and self._update.seconds is not None:
            return part.epochs * self._per_epoch * self._update.seconds
        return None


_whole: _Whole | None = None


@contextmanager
def steps(parts: Sequence[Part]) -> Iterator[_Whole]:
    """Within, all is what `parts` say."""
    global _whole
    _whole = _Whole(parts)
    try:
        with messages.inner():
            yield _whole
    finally:
        _whole.close()
        _whole = None


@contextmanager
def alone(part: Part) -> Iterator[_Whole]:
    """Within, `part` is all that is to be done, unless it is a part of what is."""
    global _whole
    if _whole is not None:
        yield _whole
        return
    _whole = _Whole([part])
    try:
        yield _whole
    finally:
        _whole.close()
        _whole = None


@contextmanager
def meter(title: str, total: float, done: float = 0, *, least: float = 2, per_epoch: int = 0) -> Iterator[Meter]:
    """What tells how far the step under way is, in units of which `least` make a rate.

    Where the units are updates, `per_epoch` says how many make an epoch: what trainings to come will take follows.
    """
    with alone(Part(title, title)) as whole, whole.metered(total, done, least, per_epoch) as its:
        yield its


@contextmanager
def aside() -> Iterator[None]:
    """Within, something is done that a step needs before it does its own."""
    with messages.inner():
        if _whole is None:
            yield
        else:
            with _whole.aside():
                yield
