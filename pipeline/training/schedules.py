"""OneCycle and the ladder of the range test, as a torch LRScheduler that steps once between updates."""

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

FEWEST_WITH_RISE = 3  # updates: with fewer, a rise and a fall would leave no update near the peak
MOMENTUM_SWING = 0.05  # as in torch's defaults: 0.85 at the peak and 0.95 at the ends


def one_cycle(
    optimizer: Optimizer,
    *,
    max_lr: float,
    total_steps: int,
    pct_start: float,
    div_factor: float,
    final_div_factor: float,
    anneal: Literal["cos", "linear"],
    momentum: float,
) -> LRScheduler:
    """torch's OneCycleLR over exactly `total_steps` updates (Smith and Topin 2018, arXiv:1708.07120).

    The rate rises from max_lr / div_factor to max_lr and ends at max_lr / div_factor / final_div_factor. A group's
    `rate_factor`, if any, multiplies its rate. Momentum (beta1) falls from `momentum` + 0.05 to `momentum` - 0.05 and
    rises back. A `momentum` of 0 is not cycled. A schedule of one or two updates starts at the peak.
    """
    if total_steps < FEWEST_WITH_RISE:
        total_steps += 1  # the extra last update, whose rate is almost 0, never runs
        pct_start = (1 - 1e-6) / total_steps  # torch's rise ends right before the first update
    if pct_start * total_steps == 1:
        # torch divides by the length of the rise, pct_start x total_steps - 1 updates. A tiny increase avoids a zero.
        pct_start *= 1 + 1e-6
    return OneCycleLR(
        optimizer,
        max_lr=[max_lr * group.get("rate_factor", 1.0) for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        anneal_strategy=anneal,
        cycle_momentum=momentum > 0,
        base_momentum=peak_momentum(momentum),
        max_momentum=momentum + MOMENTUM_SWING,
    )


def rate(optimizer: Optimizer) -> float:
    """The rate of the optimizer's next update, before any group's `rate_factor`."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group.get("rate_factor", 1.0))


def peak_momentum(momentum: float) -> float:
    """The momentum at the peak rate of a cycle around `momentum`."""
    return max(0.0, momentum - MOMENTUM_SWING)


def ladder(optimizer: Optimizer, *, min_lr: float, max_lr: float, num_steps: int) -> LRScheduler:
    """A geometric ladder: update i of `num_steps` has rate min_lr (max_lr / min_lr)^(i / (num_steps - 1))."""
    for group in optimizer.param_groups:
        group["lr"] = min_lr * group.get("rate_factor", 1.0)
        group.pop("initial_lr", None)
    return LambdaLR(optimizer, lambda step: (max_lr / min_lr) ** (step / (num_steps - 1)))
