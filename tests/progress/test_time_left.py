"""Durations in words, and the pace that they are estimated from."""

import pytest

from pipeline.progress.time_left import Pace, duration, left


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (0.2, "0:01"), (65, "1:05"), (3599.5, "1:00:00"), (7380, "2:03:00")]
)
def test_a_duration_is_written_with_minutes_and_seconds(seconds, text):
    assert duration(seconds) == text


def test_steps_of_unknown_duration_are_counted():
    assert left(80, 0) == "1:20"
    assert left(80, 1) == "1:20 + 1 step"
    assert left(0, 2) == "2 steps"
    assert left(0, 0) == ""


def test_the_pace_leaves_out_the_time_before_the_first_unit():
    pace = Pace()
    for done, now in [(1, 100.0), (2, 100.5), (3, 101.0), (5, 102.0)]:
        assert pace.seconds is None
        pace.see(done, now)
    assert pace.seconds == 0.5


def test_a_pace_ignores_units_done_before():
    pace = Pace(least=1)
    pace.see(40, 0.0)
    pace.see(40.9, 90.0)
    assert pace.seconds is None
    pace.see(41, 100.0)
    assert pace.seconds == 100
