"""An interrupt is never lost: it comes at once, between two updates, or as what held it ends."""

import signal
from collections.abc import Iterator

import pytest

from pipeline.resume import interrupts
from pipeline.resume.interrupts import Terminated


@pytest.fixture
def handled(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    monkeypatch.setattr(interrupts, "_last", float("-inf"))
    interrupts.raise_once()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def updates() -> Iterator[int]:
    with interrupts.held():
        for number in range(3):
            yield number
            interrupts.pause()


def test_it_waits_for_the_end_of_an_update(handled):
    seen = []
    with pytest.raises(Terminated):
        for number in updates():
            signal.raise_signal(signal.SIGTERM)
            seen.append(number)
    assert seen == [0]
    assert not interrupts.waiting()


def test_it_comes_where_the_updates_are_left_before_their_end(handled):
    running = updates()
    next(running)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Terminated):
        running.close()  # as a trial that is pruned


def test_it_comes_in_place_of_an_error(handled):
    with pytest.raises(Terminated), interrupts.held():
        signal.raise_signal(signal.SIGTERM)
        raise ArithmeticError("the loss became nan")
