"""An interrupt is never lost: it is raised at once, between two updates, or at the end of the context that held it."""

import signal
from collections.abc import Iterator

import pytest

from pipeline.resume import interrupts
from pipeline.resume.interrupts import Terminated


@pytest.fixture
def handled(monkeypatch):
    """Installs the program's handlers of signals for one test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    monkeypatch.setattr(interrupts, "_last", float("-inf"))
    interrupts.raise_once()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def updates() -> Iterator[int]:
    """Three updates of a training. An interrupt must cut none of them."""
    with interrupts.held():
        for number in range(3):
            yield number
            interrupts.pause()


def test_an_interrupt_waits_for_the_end_of_an_update(handled):
    seen = []
    with pytest.raises(Terminated):
        for number in updates():
            signal.raise_signal(signal.SIGTERM)
            seen.append(number)
    assert seen == [0]
    assert not interrupts.waiting()


def test_an_interrupt_is_raised_if_the_updates_are_closed_early(handled):
    running = updates()
    next(running)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated):
        running.close()  # as for a pruned trial


def test_an_interrupt_replaces_an_error(handled):
    with pytest.raises(Terminated), interrupts.held():
        signal.raise_signal(signal.SIGTERM)
        raise ArithmeticError("the loss became nan")
