"""What the terminal shows of a training: a bar and a line per epoch, plain lines where it is no terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click
from tqdm import tqdm

from pipeline.text import visible
from pipeline.training.events import EpochEnd, StepEnd

REFRESH_SECONDS = 0.5


def show(
    events: Iterable[StepEnd | EpochEnd], title: str, steps_per_epoch: int, epochs: int, done_steps: int = 0
) -> Iterator[StepEnd | EpochEnd]:
    """Passes `events` on, showing them as they go by; `done_steps` went by before."""
    with tqdm(
        total=steps_per_epoch * epochs,
        initial=done_steps,
        desc=title,
        unit="step",
        disable=not sys.stderr.isatty(),
        mininterval=REFRESH_SECONDS,
        dynamic_ncols=True,
        leave=False,
    ) as bar:
        num_images = num_correct = 0
        for event in events:
            if isinstance(event, StepEnd):
                num_images += event.num_images
                # Sums on the device; only a refresh, twice a second, asks for the numbers.
                num_correct = num_correct + event.num_correct  # type: ignore[operator]
                if bar.update():
                    bar.set_postfix(_running(event, num_images, num_correct, bar), refresh=False)
            else:
                num_images = num_correct = 0
                tqdm.write(_line(event, epochs), file=sys.stderr)
            yield event


def answer(message: str) -> None:
    """A line of what was asked for, on standard output."""
    click.echo(visible(message))


def say(message: str) -> None:
    """A line, or several, for the person at the terminal."""
    click.echo(visible(message, keep="\n"), err=True)


def _running(event: StepEnd, num_images: int, num_correct: Any, bar: Any) -> dict[str, str]:
    rate = bar.format_dict["rate"] or 0.0
    return {
        "epoch": f"{event.epoch:.2f}",
        "lr": f"{event.lr:.2e}",
        "loss": f"{float(event.loss):.3f}",
        "accuracy": f"{float(num_correct) / num_images:.1%}",
        "images/s": f"{rate * event.num_images:,.0f}",
    }


def _line(event: EpochEnd, epochs: int) -> str:
    valid = ""
    if event.valid_loss is not None and event.valid_accuracy is not None:
        valid = f"  valid loss {event.valid_loss:.4f} accuracy {event.valid_accuracy:.2%}"
    width = len(str(epochs))
    return (
        f"epoch {event.epoch:{width}}/{epochs}  lr {event.lr:.2e}  train loss {event.train_loss:.4f} "
        f"accuracy {event.train_accuracy:.2%}{valid}  {event.images_per_second:,.0f} images/s"
    )
