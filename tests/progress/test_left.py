"""The time left in the bar, for steps in order, on a fake terminal."""

import contextlib
import io
import itertools
import re
import time

import pytest

from pipeline import progress
from pipeline.progress import Part, bar, time_left
from pipeline.progress.training_display import show
from pipeline.training.events import EpochEnd, StepEnd


class Screen(io.StringIO):
    def isatty(self):
        return True

    def last(self):
        """The current text of the bar."""
        return [line.strip() for line in re.split("[\r\n]", self.getvalue()) if "|" in line][-1]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Every update is drawn, and a pace is used at once."""
    monkeypatch.setattr(time_left, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(bar, "REFRESH_SECONDS", 0)


def on_screen():
    return contextlib.redirect_stderr(Screen())


def advance(meter, units, seconds=0.02):
    """Does `units` units of work of `seconds` each."""
    for _ in range(units):
        time.sleep(seconds)
        meter.advance(lambda: "text")


TRAININGS = [Part("lr_range", "lr_range"), *(Part(f"train, seed {seed}", "train", epochs=100) for seed in range(2))]


def test_a_range_test_predicts_the_time_of_trainings():
    with on_screen() as screen, progress.steps([*TRAININGS, Part("evaluate", "evaluate")]) as whole:
        assert screen.last().endswith("| 4 steps left")
        with whole.step(0), progress.meter("lr_range", 20, per_epoch=10) as meter:
            advance(meter, 1)
            assert screen.last().endswith("| 4 steps left  text")
            advance(meter, 9)
            found = re.search(r"(\d+):(\d+) \+ 1 step left  text$", screen.last())
            # Two trainings of 1,000 updates of at least 0.02 s.
            assert 40 <= 60 * int(found[1]) + int(found[2]) < 400
            assert screen.last().startswith("1/4 lr_range")


def test_a_second_training_is_expected_to_take_as_long_as_the_first():
    with on_screen() as screen, progress.steps(TRAININGS) as whole:
        whole.ended(0, 3.0)
        whole.ended(1, 90.0)
        with whole.step(2):
            assert re.search(r"^3/3 train, seed 1 \|.*\| 1:(29|30) left$", screen.last())


def test_a_single_step_shows_no_number_of_steps():
    with on_screen() as screen, progress.meter("train", 100) as meter:
        advance(meter, 1)
        assert re.fullmatch(r"train \|.*\| text", screen.last())
        advance(meter, 9)
        assert re.search(r"\| 0:\d\d left  text$", screen.last())


def test_work_before_a_step_does_not_move_the_bar():
    with on_screen() as screen, progress.alone(Part("train", "train", epochs=50)):
        with progress.aside(), progress.meter("lr_range", 10, per_epoch=10) as meter:
            advance(meter, 1)
            assert "| 1 step left" in screen.last()
            advance(meter, 9)
            assert "#" not in screen.last()
            seconds = re.search(r"\| 0:(\d\d) left", screen.last())
            assert int(seconds[1]) >= 10  # 500 updates
        with progress.meter("train", 10) as meter:
            advance(meter, 10)
            assert "#" in screen.last()
    assert re.search(r"\r +\r+$", screen.getvalue())  # the bar is erased


def test_lines_are_printed_above_the_bar():
    with on_screen() as screen, progress.alone(Part("train", "train")):
        progress.say("a line")
        assert screen.last().startswith("train |")
    assert "\r\x1b[Ka line\n" in screen.getvalue()


def test_text_after_the_bar_starts_a_new_line(monkeypatch):
    monkeypatch.setattr(bar, "REFRESH_SECONDS", 0.5)
    with on_screen() as screen:
        with progress.alone(Part("train", "train")):
            pass
        assert screen.last().startswith("train |")
    assert screen.getvalue().endswith(" \r")


def test_quiet_on_a_terminal_draws_nothing_and_knows_its_width():
    with on_screen() as screen, progress.quiet():
        assert progress.screen() is screen
        with progress.meter("train", 2) as meter:
            advance(meter, 2)
        assert screen.getvalue() == ""
        progress.conclude("the end")
    assert screen.getvalue() == "the end\n"


def test_quiet_hides_the_result_of_a_part(capsys):
    with progress.quiet():
        with progress.steps(TRAININGS) as whole, whole.step(0):
            progress.conclude("of a step")
        with progress.alone(TRAININGS[1]):
            with progress.aside():
                progress.conclude("of what a step needs first")
            progress.conclude("of all")
        progress.say("a line")
    assert capsys.readouterr().err == "of all\n"


def test_without_a_terminal_nothing_is_drawn(capsys):
    with progress.steps(TRAININGS) as whole, whole.step(0), progress.meter("lr_range", 2, per_epoch=1) as meter:
        advance(meter, 2)
        progress.say("a line")
    assert capsys.readouterr().err == "a line\n"


def test_lines_of_epochs_in_a_pipe_say_the_time_left(monkeypatch, capsys):
    seconds = itertools.count()
    monkeypatch.setattr(bar.time, "monotonic", lambda: float(next(seconds)))
    events = [
        event
        for epoch in (1, 2, 3)
        for event in (
            *(StepEnd(4 * epoch + step - 4, epoch, 0.1, 1.0, 1, 1, 1.0) for step in range(4)),
            EpochEnd(epoch, 4 * epoch, 0.1, 1.0, 0.5, None, None, 1.0, 1.0),
        )
    ]
    assert list(show(events, 4, 3)) == events
    *lines, last = (line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch"))
    first, second = (int(re.search(r"images/s  0:(\d\d) left$", line)[1]) for line in lines)
    assert first == 2 * second > 0 and last.endswith("images/s")
