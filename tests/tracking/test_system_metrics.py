"""System metrics are of the graphics cards that this process may use."""

import pytest

from pipeline.tracking.system_metrics import visible

CARDS = ["GPU-5e3a", "GPU-7b10", "GPU-7b22"]


@pytest.mark.parametrize(
    ("allowed", "measured"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("GPU-7b2", [2]),
        ("GPU-7b", []),  # of two cards
        ("0,7,1", [0]),
        ("-1", []),
    ],
)
def test_only_visible_cards_are_measured_and_in_the_order_of_cuda(allowed, measured):
    assert visible(CARDS, allowed) == measured
