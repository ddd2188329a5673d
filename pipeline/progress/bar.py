"""One bar for a whole command: the finished steps, the current step, and the time left for all of them."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from tqdm import tqdm

from pipeline.progress import messages
from pipeline.progress.time_left import Pace, left
from pipeline.text import visible

REFRESH_SECONDS = 0.5


class Part(NamedTuple):
    """One step of a command."""

    title: str
    step: str  # the kind of step; steps of one kind are expected to take equally long
    epochs: int = 0  # passes over the train split, if it is a training


class Meter:
    """The progress of a step, in its own units."""

    def __init__(self, whole: "_Whole", total: float, done: float, pace: Pace) -> None:
        self.total = total
        self.done = done
        self.pace = pace
        self._whole = whole

    def advance(self, text: Callable[[], str]) -> None:
        """Adds one unit. `text` returns the text beside the bar; it is called at most twice a second."""
        self.at(self.done + 1, text)

    def at(self, done: float, text: Callable[[], str]) -> None:
        """Sets the number of finished units."""
        self.done = done
        self.pace.see(done, time.monotonic())
        self._whole.draw(text)

    @property
    def seconds_left(self) -> float | None:
        """The time until the end at the current pace; None if unknown."""
        return None if self.pace.seconds is None else max(0.0, self.total - self.done) * self.pace.seconds


class _Bar(tqdm):
    text = ""

    @property
    def format_dict(self) -> Any:
        return {**super().format_dict, "text": self.text}


class _Whole:
    """The steps of a command in order. Draws the bar if standard error is a terminal."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = list(parts)
        self._spent: dict[str, float] = {}  # seconds that a step took, by its kind
        self._position = 0
        self._started = time.monotonic()
        self._drawn = 0.0
        self._meter: Meter | None = None
        self._is_aside = False
        self._per_epoch = 0  # updates
        self._update = Pace()
        is_worker = multiprocessing.parent_process() is not None  # its parent process draws on the terminal
        self._bar = _Bar(
            total=len(self._parts),
            bar_format="{desc} |{bar}| {text}",
            disable=not sys.stderr.isatty() or is_worker,
            dynamic_ncols=True,
            leave=False,
            delay=REFRESH_SECONDS,  # so that `draw` draws it first, with its text
        )
        self.draw()

    @contextmanager
    def step(self, position: int) -> Iterator[None]:
        """Inside this context, the step at `position` is under way."""
        self._position, self._started, self._meter = position, time.monotonic(), None
        self.draw()
        yield
        self.ended(position, time.monotonic() - self._started)

    def ended(self, position: int, seconds: float | None) -> None:
        """Records that a step has ended. Other steps of its kind are expected to take `seconds`; None if unknown."""
        if seconds is not None:
            self._spent[self._parts[position].step] = seconds
        self._position, self._meter = position + 1, None

    @contextmanager
    def metered(self, total: float, done: float, least: float, per_epoch: int) -> Iterator[Meter]:
        """A meter for the current step."""
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
        """Inside this context, meters show work that the step needs before it starts."""
        self._is_aside = True
        try:
            yield
        finally:
            self._is_aside = False

    def draw(self, text: Callable[[], str] = str) -> None:
        """Draws the bar, at most twice a second."""
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
        """Removes the bar."""
        self._bar.clear()  # tqdm would leave it, because it was not drawn by tqdm's own count
        self._bar.close()

    def _share(self) -> float:
        """The finished share of the current step, from 0 to 1."""
        if self._meter is None or self._is_aside or not self._meter.total:
            return 0.0
        return min(1.0, self._meter.done / self._meter.total)

    def _left(self) -> tuple[float, int]:
        """(known seconds left, number of steps whose time is unknown)."""
        later = [self._expected(part) for part in self._parts[self._position + 1 :]]
        waiting = [self._left_of_step(), *later]
        is_only_step = len(self._parts) == 1 and not self._is_aside
        return sum(filter(None, waiting)), 0 if is_only_step else waiting.count(None)

    def _left_of_step(self) -> float | None:
        """Seconds left of the current step; None if unknown."""
        current = self._parts[self._position]
        if self._meter is None:
            expected = self._spent.get(current.step)
            return None if expected is None else max(0.0, expected - (time.monotonic() - self._started))
        seconds, itself = self._meter.seconds_left, self._expected(current) if self._is_aside else 0.0
        return None if seconds is None or itself is None else seconds + itself

    def _expected(self, part: Part) -> float | None:
        """Expected seconds of a step that has not started; None if unknown."""
        if part.step in self._spent:
            return self._spent[part.step]
        if part.epochs and self._per_epoch and self._update.seconds is not None:
            return part.epochs * self._per_epoch * self._update.seconds
        return None


_whole: _Whole | None = None


@contextmanager
def _shown(parts: Sequence[Part]) -> Iterator[_Whole]:
    global _whole
    _whole = _Whole(parts)
    try:
        yield _whole
    finally:
        _whole.close()
        _whole = None


@contextmanager
def steps(parts: Sequence[Part]) -> Iterator[_Whole]:
    """Inside this context, the bar shows the steps `parts`."""
    with _shown(parts) as whole, messages.inner():
        yield whole


def alone(part: Part) -> AbstractContextManager[_Whole]:
    """Inside this context, the bar shows the only step `part`, unless `steps` or another part is already shown."""
    return _shown([part]) if _whole is None else nullcontext(_whole)


@contextmanager
def meter(title: str, total: float, done: float = 0, *, least: float = 2, per_epoch: int = 0) -> Iterator[Meter]:
    """A meter for the current step. Its pace is known after `least` units.

    If the units are updates, `per_epoch` is their number per epoch. It predicts how long later trainings take.
    """
    with alone(Part(title, title)) as whole, whole.metered(total, done, least, per_epoch) as current:
        yield current


@contextmanager
def aside() -> Iterator[None]:
    """Inside this context, the program does work that a step needs before it starts, such as a range test."""
    with messages.inner():
        if _whole is None:
            yield
        else:
            with _whole.aside():
                yield
