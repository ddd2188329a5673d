"""Shows a training on the terminal: its progress beside the bar, and one line per epoch."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from pipeline.progress.bar import meter
from pipeline.progress.messages import say, screen
from pipeline.progress.time_left import duration
from pipeline.training.events import EpochEnd, StepEnd


def show(
    events: Iterable[StepEnd | EpochEnd], steps_per_epoch: int, epochs: int, done_steps: int = 0
) -> Iterator[StepEnd | EpochEnd]:
    """Passes on `events` and shows them. `done_steps` is the number of updates before the first event."""
    with meter("train", steps_per_epoch * epochs, done_steps, per_epoch=steps_per_epoch) as progress:
        num_images = num_correct = 0
        for event in events:
            if isinstance(event, StepEnd):
                num_images += event.num_images
                # The sum stays on the device. Only drawing, twice a second, waits for the number.
                num_correct = num_correct + event.num_correct  # type: ignore[operator]
                progress.advance(partial(_running, event, epochs, num_images, num_correct))
            else:
                num_images = num_correct = 0
                say(f"{_line(event, epochs)}{_left(progress.seconds_left)}")
            yield event


def _running(event: StepEnd, epochs: int, num_images: int, num_correct: Any) -> str:
    accuracy = float(num_correct) / num_images
    return f"epoch {event.epoch:.2f}/{epochs}  loss {float(event.loss):.3f}  accuracy {accuracy:.1%}"


def _left(seconds: float | None) -> str:
    """The time left in a pipe or a file, which shows no bar; empty if unknown."""
    return f"  {duration(seconds)} left" if seconds and not screen().isatty() else ""


def _line(event: EpochEnd, epochs: int) -> str:
    valid = ""
    if event.valid_loss is not None and event.valid_accuracy is not None:
        valid = f"  valid loss {event.valid_loss:.4f} accuracy {event.valid_accuracy:.2%}"
    width = len(str(epochs))
    return (
        f"epoch {event.epoch:{width}}/{epochs}  lr {event.lr:.2e}  train loss {event.train_loss:.4f} "
        f"accuracy {event.train_accuracy:.2%}{valid}  {event.images_per_second:,.0f} images/s"
    )
