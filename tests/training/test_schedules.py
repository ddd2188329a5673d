"""The OneCycle schedule and the ladder: their rates and momenta at each update."""

from itertools import pairwise

import pytest
import torch

from pipeline.training.schedules import ladder, one_cycle


def rates(total_steps, **changes):
    """(rate, momentum) of each update of a cycle."""
    options = {
        "max_lr": 1.0,
        "pct_start": 0.3,
        "div_factor": 25,
        "final_div_factor": 1e4,
        "anneal": "cos",
        "momentum": 0.9,
    }
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    schedule = one_cycle(optimizer, total_steps=total_steps, **(options | changes))
    seen = []
    for step in range(total_steps):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        if step + 1 < total_steps:
            schedule.step()
    return seen


def test_one_cycle_at_start_peak_and_end():
    seen = rates(101, pct_start=0.25, div_factor=10, final_div_factor=100, anneal="linear")
    peak = max(range(101), key=lambda step: seen[step][0])
    assert peak == 24
    assert seen[0] == pytest.approx((0.1, 0.95))
    assert seen[peak] == pytest.approx((1.0, 0.85), abs=0.01)
    assert seen[-1] == pytest.approx((0.001, 0.95))


def test_linear_rises_and_falls_in_straight_lines():
    seen = [lr for lr, _ in rates(21, pct_start=0.5, anneal="linear", div_factor=10)]
    rise = [b - a for a, b in pairwise(seen[:10])]
    fall = [b - a for a, b in pairwise(seen[10:])]
    assert rise == pytest.approx([rise[0]] * 9) and rise[0] > 0
    assert fall == pytest.approx([fall[0]] * 10) and fall[0] < 0


@pytest.mark.parametrize(
    ("total_steps", "pct_start"),
    [(10, 0.1), (5, 0.2), (4, 0.25), (2, 0.5), (1, 0.3), (1, 0.999), (2, 0.3), (3, 1 / 3)],
)
def test_short_runs_stay_finite_and_within_the_peak(total_steps, pct_start):
    for lr, momentum in rates(total_steps, pct_start=pct_start):
        assert 0 <= lr <= 1 + 1e-9
        assert 0.85 - 1e-9 <= momentum <= 0.95 + 1e-9


@pytest.mark.parametrize("pct_start", [0.01, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
def test_the_shortest_trainings_make_an_update_near_the_peak(pct_start, anneal):
    alone = rates(1, pct_start=pct_start, anneal=anneal)
    two = rates(2, pct_start=pct_start, anneal=anneal)
    assert alone == [pytest.approx((1, 0.85), rel=1e-5)]
    assert two == [pytest.approx((1, 0.85), rel=1e-5), pytest.approx((0.5, 0.9), rel=1e-4)]
    for total_steps in range(3, 9):
        assert max(lr for lr, _ in rates(total_steps, pct_start=pct_start, anneal=anneal)) > 0.5


def test_momentum_zero_is_left_alone():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    one_cycle(
        optimizer,
        max_lr=1,
        total_steps=9,
        pct_start=0.3,
        div_factor=25,
        final_div_factor=10,
        anneal="cos",
        momentum=0,
    )
    assert optimizer.param_groups[0]["momentum"] == 0


def test_the_ladder_is_geometric_from_end_to_end():
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = ladder(optimizer, min_lr=1e-4, max_lr=1.0, num_steps=5)
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
