"""Short cycles: OneCycle trainings of few updates at several peak rates. They decide the rate of the whole training.

A ladder of rates has no warm-up and ends after a few dozen updates, so it says little about the rate that OneCycle
bears. A short cycle is the whole training in small: it warms up, anneals and is judged on validation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F

from pipeline.models.stages import BATCH_NORMS
from pipeline.params import TrainParams
from pipeline.training.device import random_state_kept
from pipeline.training.events import StepEnd
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training
from pipeline.training.update import predict

STEP = math.sqrt(10)  # between neighbouring rates
MOST_CYCLES, FEWEST_CYCLES = 6, 3
FEWEST_UPDATES = 8  # fewest updates of a cycle: fewer do not show what a rate does
# All short cycles together take at most LONG_SHARE of the training's updates. For a training of fewer than LONG epochs,
# they take up to SHORT_SHARE of them, but at most SHORT_UPDATES, if that is more.
LONG = 24
LONG_SHARE, SHORT_SHARE, SHORT_UPDATES = 0.1, 0.5, 400
MOST_VALID = 2000  # most validation images that judge a cycle
NORM_SHARE = 1 / 8  # share of a cycle's updates over which its batch norms average
LAST = 0.2  # share of a cycle's updates, the last ones, whose losses judge it if there is no validation
LEAST_CHANGE = 0.05  # share of the first loss; a smaller fall is no learning, a smaller rise no harm
TIE = 0.02  # share of the best loss; rates whose loss is at most this much higher do about as well
LIFT = 2.0  # factor on the rate if the weights grow
HIGHEST_LIFT = 6.0  # times the usual rate; LIFT leads no higher: cycles that are best far above it are too short
LEANING = 0.5  # share of the way, on a logarithmic axis, from the best rate of the cycles to a usual rate
# Common peak rates of OneCycle; for SGD with momentum as in Goyal et al. 2017 (arXiv:1706.02677).
USUAL_BATCH = 128  # batch size of the usual rates of SGD
USUAL = {"sgd": 0.1, "adamw": 2e-3, "muon": 0.03}
USUAL_FROM_WEIGHTS = {"sgd": 0.02, "adamw": 1e-3, "muon": 0.01}  # for starting weights, which a large rate destroys


@dataclass(frozen=True)
class Plan:
    """How many short cycles may run, and the updates of each."""

    num_updates: int
    most_cycles: int


@dataclass(frozen=True)
class Cycle:
    """A short cycle that has ended."""

    lr: float  # its peak rate
    loss: float  # on validation; without validation, of its last updates; inf if it diverged
    accuracy: float | None  # on validation
    first_loss: float  # of its first update

    @property
    def is_too_high(self) -> bool:
        """Whether the cycle raised the loss. A rate that is too low hardly changes it."""
        return not self.loss <= (1 + LEAST_CHANGE) * self.first_loss


@dataclass(frozen=True)
class Choice:
    """The rate that short cycles suggest."""

    lr: float | None  # None if all cycles diverged
    low: float | None  # the rates from low to high do about as well
    high: float | None
    reason: str  # why there is no rate; else empty
    doubt: str  # what makes the rate uncertain; else empty


def plan(epochs: int, num_updates: int) -> Plan | None:
    """The short cycles for a training of `epochs` and `num_updates` in all; None if it is too short for any."""
    budget = LONG_SHARE * num_updates
    if epochs < LONG:
        budget = max(budget, min(SHORT_SHARE * num_updates, SHORT_UPDATES))
    cycles = min(MOST_CYCLES, int(budget / FEWEST_UPDATES))
    return Plan(int(budget / cycles), cycles) if cycles >= FEWEST_CYCLES else None


def usual_rate(optimizer: str, batch_size: int, has_weights: bool) -> float:
    """A common peak rate for `optimizer`. For SGD it is in proportion to the batch.

    has_weights: whether the network starts from weights, not from nothing.
    """
    rate = (USUAL_FROM_WEIGHTS if has_weights else USUAL)[optimizer]
    return rate * (batch_size / USUAL_BATCH if optimizer == "sgd" else 1)


def weights_grow(recipe: Recipe) -> bool:
    """Whether the scale of the weights grows in a training, and so damps the rate.

    It grows before batch norms that learn and whose statistics follow the training. `normalise_weights` keeps it fixed.
    """
    if recipe.params.normalise_weights == "on":
        return False
    model = recipe.outline()
    if frozen := recipe.frozen(model):
        frozen.begin(1)
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    learn = any(all(each.requires_grad for each in norm.parameters()) for norm in norms)
    return learn and recipe.params.freeze_norms == "off"


def untested(usual: float, num_updates: int) -> Choice:
    """The choice for a training of so few updates that no short cycle fits into it."""
    doubt = f"{num_updates:,} updates are too few for short cycles: a usual rate is taken, untested"
    return Choice(usual, None, None, "", doubt)


def training(recipe: Recipe, max_lr: float, num_updates: int) -> Training:
    """A OneCycle of `num_updates` updates: the whole training, shortened. The last epoch may be incomplete.

    All short cycles of a recipe share weights, order and augmentation, so that only the rate differs. They keep no
    average of weights, which would lag behind, and their batch norms follow faster for the same reason.
    """
    params = recipe.params
    assert isinstance(params, TrainParams)
    batches = recipe.train_batches(params.seed, num_updates)
    shortened = {
        "epochs": -(-num_updates // len(batches)),
        "ema_decay": 0.0,
        "compile": "off",
        "unfreeze_epoch": 0,
        "norm_momentum": min(1.0, max(params.norm_momentum, 1 / (NORM_SHARE * num_updates))),
    }
    valid = recipe.splits.valid and recipe.splits.valid.spread(MOST_VALID)
    short = replace(recipe, params=params.model_copy(update=shortened))
    return short.cycle(max_lr, batches, num_updates, valid)


def run(
    training: Training, lr: float, num_updates: int, on_update: Callable[[float, float], None] | None = None
) -> Cycle:
    """Trains a short cycle with peak rate `lr` to its end. The random state does not change.

    on_update: called with the rate and the loss of each update.
    """
    losses: list[float] = []
    with random_state_kept(training.batches.device):
        for event in training.events():
            if not isinstance(event, StepEnd):
                continue
            losses.append(float(event.loss))  # waits for the device; a diverged cycle ends here
            if on_update is not None:
                on_update(event.lr, losses[-1])
            if not math.isfinite(losses[-1]):
                return Cycle(lr, math.inf, None, losses[0])
            if len(losses) == num_updates:
                break
    if training.valid is None:
        return Cycle(lr, float(np.mean(losses[-max(1, round(LAST * num_updates)) :])), None, losses[0])
    logits, labels = predict(training.part(training.model), training.valid, training.precision)
    loss = F.cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return Cycle(lr, loss if math.isfinite(loss) else math.inf, accuracy, losses[0])


def walk(measure: Callable[[float], Cycle], start: float, most: int) -> list[Cycle]:
    """At most `most` cycles, by rising rate: from `start` on until the best one has a worse one on both sides.

    While every rate is too high, that is, raises the loss, the walk goes down.
    """
    done = {0: measure(start)}
    while len(done) < most:
        best = min(done, key=lambda place: (done[place].is_too_high, done[place].loss, place))
        beside = (min(done) - 1,) if done[best].is_too_high else (best + 1, best - 1)
        place = next((each for each in beside if each not in done), None)
        if place is None:
            break
        done[place] = measure(float(f"{start * STEP**place:.3g}"))
    return [done[place] for place in sorted(done)]


def choose(cycles: Sequence[Cycle], usual: float, weights_grow: bool) -> Choice:
    """The rate that `cycles`, by rising rate, suggest. It leans to `usual`, a rate that is often good.

    weights_grow: what the function of this name says of the recipe. If they grow, the whole training bears a higher
    rate than a short cycle, which ends before they have grown.
    """
    if not any(math.isfinite(cycle.loss) for cycle in cycles):
        return Choice(None, None, None, f"every short cycle diverged, down to lr {cycles[0].lr:.2e}", "")
    if not any(cycle.loss < (1 - LEAST_CHANGE) * cycle.first_loss for cycle in cycles):
        doubt = (
            f"no short cycle lowered the loss by {LEAST_CHANGE:.0%}: a usual rate is taken; give more epochs, or max_lr"
        )
        return Choice(usual, None, None, "", doubt)
    place = min(range(len(cycles)), key=lambda each: cycles[each].loss)
    best = cycles[place]
    around = [min(cycle.loss, best.first_loss) for cycle in cycles[max(0, place - 1) : place + 2]]
    is_bracketed = 0 < place < len(cycles) - 1
    bend, slope = _parabola(around) if is_bracketed else (0.0, 0.0)
    vertex = -slope / (2 * bend) if bend > 0 else 0.0  # in steps from the best rate, within half a step
    found = best.lr * STEP**vertex
    lr = found * (usual / found) ** LEANING
    if weights_grow:
        lr = max(lr, min(LIFT * lr, HIGHEST_LIFT * usual))
    width = math.sqrt(TIE * best.loss / bend) if bend > 0 else 1.0
    doubt = "" if is_bracketed else _why_in_doubt(place, cycles)
    return Choice(lr, lr * STEP ** -min(1, width), lr * STEP ** min(1, width), "", doubt)


def _parabola(losses: Sequence[float]) -> tuple[float, float]:
    """(bend, slope) at 0 of the parabola through `losses` at -1, 0 and 1."""
    left, middle, right = losses
    return (left - 2 * middle + right) / 2, (right - left) / 2


def _why_in_doubt(place: int, cycles: Sequence[Cycle]) -> str:
    end = "lowest" if place == 0 else "highest"
    return f"the {end} of {len(cycles)} rates was the best, so a better one may lie beyond: give more epochs, or max_lr"
