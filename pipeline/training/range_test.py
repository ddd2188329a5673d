"""The learning-rate range test (Smith 2017, arXiv:1506.01186): a ladder of rates, and the rate it suggests."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mode

import numpy as np
import scipy  # loads its signal module on first use, so that a start does not wait for it

from pipeline.params import LadderParams
from pipeline.training import schedules
from pipeline.training.device import random_state_kept
from pipeline.training.events import StepEnd
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training

STEEPEST = "steepest"
RULES = ("valley", STEEPEST, "minimum/10")
# The running mean lags by 9 updates, or half a decade of the default ladder. This lag is wanted: the ladder has no
# warm-up, so its loss turns up before the peak rate that OneCycle can use.
SMOOTHING = 0.9
DIVERGENCE = 4.0  # times the lowest smoothed loss
SLOPE_WINDOW = 0.15  # of the curve; a slope between neighbouring points is mostly noise
LEAST_POINTS = 15
LEAST_FALL = 0.05  # of the first loss; a smaller fall is noise, not learning


@dataclass(frozen=True)
class Curve:
    """One ladder up to the point where it diverged: rates, losses and smoothed losses, each (n,), all finite."""

    lr: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray


@dataclass(frozen=True)
class Suggestion:
    """The combined result of several ladders."""

    lr: float | None  # None if the curves allow none
    reason: str  # why there is no rate; else empty
    rates: dict[str, float | None]  # the median of each rule
    spread: float | None  # highest divided by lowest rate of the repeats; None if there is no rate


def training(recipe: Recipe, ladder: LadderParams, repeat: int) -> Training:
    """Ladder number `repeat` of a range test, with its own weights, order and augmentation."""
    params = recipe.params
    seed = params.seed + repeat
    model, batches = recipe.model(seed), recipe.train_batches(seed, 0)
    optimizer = recipe.optimizer(model, ladder.ladder_min_lr, schedules.peak_momentum(params.momentum))
    schedule = schedules.ladder(
        optimizer, min_lr=ladder.ladder_min_lr, max_lr=ladder.ladder_max_lr, num_steps=ladder.ladder_steps
    )
    return Training(
        model,
        batches,
        optimizer,
        schedule,
        epochs=-(-ladder.ladder_steps // len(batches)),
        precision=recipe.precision,
        label_smoothing=params.label_smoothing,
        class_weights=recipe.class_weights(),
        frozen=recipe.frozen(model),
        freezes_norms=params.freeze_norms == "on",
        accumulate=params.accumulate,
        clip_grad_norm=params.clip_grad_norm,
    )


def climb(training: Training, num_steps: int, on_update: Callable[[float, float], None] | None = None) -> Curve:
    """The losses of `training` while its rate climbs `num_steps` rungs, until they diverge or are not finite.

    on_update: called with the rate and the loss of each update. The random state does not change.
    """
    rates: list[float] = []
    losses: list[float] = []
    lowest, total, weight = math.inf, 0.0, 0.0
    with random_state_kept(training.batches.device):
        for event in training.events():
            if not isinstance(event, StepEnd):
                continue
            loss = float(event.loss)  # waits for the device; the stop rule needs it
            if not math.isfinite(loss):
                break
            rates.append(event.lr)
            losses.append(loss)
            if on_update is not None:
                on_update(event.lr, loss)
            total, weight = SMOOTHING * total + loss, SMOOTHING * weight + 1
            running = total / weight  # the last of `smooth`, which would compute all of them at every update
            lowest = min(lowest, running)
            if len(losses) == num_steps or running > DIVERGENCE * lowest:
                break
    return Curve(np.array(rates), np.array(losses), smooth(np.array(losses)))


def smooth(losses: np.ndarray) -> np.ndarray:
    """The debiased exponential running mean of `losses` (n,)."""
    return scipy.signal.lfilter([1.0], [1.0, -SMOOTHING], losses) / np.cumsum(SMOOTHING ** np.arange(len(losses)))


def suggest(curves: Sequence[Curve], rule: str = STEEPEST) -> Suggestion:
    """The rate that `rule` finds on `curves`, repeats of one ladder: the median over the curves that allow a rate."""
    found = [_rates(curve) for curve in curves]
    usable = [rates for rates in found if isinstance(rates, dict)]
    if 2 * len(usable) <= len(curves):
        reasons = [reason for reason in found if isinstance(reason, str)]
        return Suggestion(None, mode(reasons), dict.fromkeys(RULES), None)
    rates = {name: float(np.exp(np.median([np.log(each[name]) for each in usable]))) for name in RULES}
    chosen = [each[rule] for each in usable]
    return Suggestion(rates[rule], "", dict(rates), max(chosen) / min(chosen))


def _rates(curve: Curve) -> dict[str, float] | str:
    """The rate of each rule on `curve`, by name; if the curve allows none, the reason instead."""
    if len(curve.lr) < LEAST_POINTS:
        return f"the loss diverged after {len(curve.lr)} updates: start the ladder lower (ladder_min_lr)"
    bottom = int(np.argmin(curve.smoothed))
    if curve.smoothed[0] - curve.smoothed[bottom] < LEAST_FALL * abs(curve.smoothed[0]) or bottom < 2:
        return f"the loss never fell by {LEAST_FALL:.0%}: a longer ladder (ladder_steps) teaches the model more"
    start = _start_of_descent(curve.smoothed, bottom)
    # Fits lines to a window. The rungs of the ladder are evenly spaced in log10(lr), so this slope is along log10(lr).
    window = int(SLOPE_WINDOW * len(curve.lr)) | 1
    slope = scipy.signal.savgol_filter(curve.smoothed, window, polyorder=1, deriv=1)
    return {
        "valley": float(np.sqrt(curve.lr[start] * curve.lr[bottom])),
        "steepest": float(curve.lr[start + int(np.argmin(slope[start : bottom + 1]))]),
        "minimum/10": float(curve.lr[bottom] / 10),
    }


def _start_of_descent(smoothed: np.ndarray, bottom: int) -> int:
    """The last point before `bottom` with 95 % of the fall still ahead."""
    threshold = smoothed[bottom] + 0.95 * (smoothed[0] - smoothed[bottom])
    return int(np.flatnonzero(smoothed[: bottom + 1] >= threshold)[-1])
