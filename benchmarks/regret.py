"""How much accuracy does a rule for the peak rate cost? Whole trainings at a grid of rates, and where each rule lands.

python -m benchmarks.regret train DATA [recipe ...]    trains the grid, for hours; a second start continues
python -m benchmarks.regret train DATA --lr LR recipe  trains at one rate, with seed 0
python -m benchmarks.regret ladders DATA [recipe ...]  climbs the range test's ladders
python -m benchmarks.regret auto DATA [recipe ...]     chooses each rate as max_lr=auto does
python -m benchmarks.regret table                      prints regret by rule, and draws docs/regret.png
python -m benchmarks.regret doubling                   prints whether to double a rate far above the usual one

DATA holds the folders cifar10 (train/ and test/ of JPEG files), photos and trashnet. Every number is a line of
benchmarks/regret.jsonl. The regret of a rule is the best mean accuracy on validation, over the rates of the grid, minus
the accuracy at the rate that the rule picks, read off between the grid's rates on a logarithmic axis.
"""

import argparse
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch.nn.functional as F

from benchmarks.regret_recipes import ALL_RECIPES, MORE_SEEDS, RECIPES
from benchmarks.regret_results import FAILED, accuracies_of, doubling, keep, params_of, rows_of, table
from pipeline.history.initial_weights import prepare
from pipeline.params import LadderParams
from pipeline.training import range_test, short_cycles
from pipeline.training.recipe import Recipe
from pipeline.training.short_cycles import Cycle, Plan
from pipeline.training.training import Diverged
from pipeline.training.update import predict

STEP = math.sqrt(10)  # of the grid: half decades
START = {"sgd": 0.3, "adamw": 3e-3, "muon": 0.03}  # from where the grid is walked both ways
SEEDS = 3  # trainings per rate, for rates that do nearly as well as the best; one for the others
NEAR = 0.05  # of accuracy, below the best: such rates are trained with all seeds
WORSE = 0.04  # of accuracy, below the best: the grid ends there
WIDEST = 2.1  # decades from START: the grid ends there, even if no accuracy falls


def train(data: Path, names: list[str]) -> None:
    """Trains each recipe from a usual rate both ways until accuracy has clearly fallen, then beside the best.

    Then it repeats the rates that do nearly as well as the best with other seeds, and so the rate that `auto` has
    chosen, if there is one.
    """
    for name in names:
        recipe = recipe_of(name, data)
        known = accuracies_of(name)
        for lr in _walk(known, START[recipe.params.optimizer]):
            if lr not in known:
                known[lr] = {0: _train(name, recipe, lr, seed=0)}
        best = max(_mean(known, lr) for lr in known)
        near = [lr for lr in sorted(known) if _mean(known, lr) >= best - NEAR]
        for lr in [*near, *(row["lr"] for row in rows_of(name, "auto")[-1:])]:
            for seed in range(MORE_SEEDS.get(name, SEEDS)):
                if seed not in known.setdefault(lr, {}):
                    known[lr][seed] = _train(name, recipe, lr, seed)


def train_at(lr: float, data: Path, names: list[str]) -> None:
    """Trains each recipe at one rate, with seed 0, unless that has been done."""
    for name in names:
        if 0 not in accuracies_of(name).get(lr, {}):
            _train(name, recipe_of(name, data), lr, seed=0)


def ladders(data: Path, names: list[str]) -> None:
    """Climbs two ladders of each recipe, and keeps their losses."""
    for name in names:
        recipe, ladder = recipe_of(name, data), LadderParams()
        for repeat in range(2):
            started = time.perf_counter()
            curve = range_test.climb(range_test.training(recipe, ladder, repeat), ladder.ladder_steps)
            seconds = time.perf_counter() - started
            losses = {"lr": curve.lr.tolist(), "loss": curve.loss.tolist()}
            keep({"recipe": name, "kind": "ladder", "repeat": repeat, "seconds": seconds, **losses})


def auto(data: Path, names: list[str]) -> None:
    """Lets the program's own rule, short cycles, choose the rate of each recipe."""
    for name in names:
        recipe = recipe_of(name, data)
        params = params_of(name, data)
        total = params.epochs * recipe.updates_per_epoch
        usual = short_cycles.usual_rate(params.optimizer, params.batch_size, recipe.pretrained is not None)
        plan = short_cycles.plan(params.epochs, total) or Plan(0, 0)
        started = time.perf_counter()
        if plan.most_cycles:
            cycles = short_cycles.walk(partial(_short_cycle, recipe, plan.num_updates), usual, plan.most_cycles)
            choice = short_cycles.choose(cycles, usual, short_cycles.weights_grow(recipe))
        else:
            cycles, choice = [], short_cycles.untested(usual, total)
        seconds, cost = round(time.perf_counter() - started, 1), len(cycles) * plan.num_updates / total
        trained = [vars(cycle) for cycle in cycles]
        keep({"recipe": name, "kind": "auto", **vars(choice), "cost": cost, "seconds": seconds, "cycles": trained})
        print(f"{name}: {choice.lr}, {len(cycles)} cycles of {plan.num_updates} updates, {cost:.0%}", flush=True)


def _short_cycle(recipe: Recipe, num_updates: int, lr: float) -> Cycle:
    return short_cycles.run(short_cycles.training(recipe, lr, num_updates), lr, num_updates)


def _walk(known: Mapping[float, Mapping[int, float]], start: float) -> Iterator[float]:
    """The rates to train at. Each depends on the accuracies of those before it."""
    for step in (STEP, 1 / STEP):
        lr = start
        while True:
            yield lr
            if _mean(known, lr) < max(_mean(known, each) for each in known) - WORSE:
                break
            lr = float(f"{lr * step:.3g}")
            if abs(math.log10(lr / start)) > WIDEST:
                break
    best = max(known, key=lambda lr: _mean(known, lr))
    for factor in (STEP**0.5, STEP**-0.5):
        lr = float(f"{best * factor:.3g}")
        if not any(math.isclose(lr, trained, rel_tol=0.01) for trained in known):
            yield lr


def _mean(known: Mapping[float, Mapping[int, float]], lr: float) -> float:
    return fmean(known[lr].values())


def _train(name: str, recipe: Recipe, lr: float, seed: int) -> float:
    started = time.perf_counter()
    seeded = replace(recipe, params=recipe.params.model_copy(update={"seed": seed}))
    whole = seeded.one_cycle(lr)
    training = replace(whole, valid=None)  # validated once, at the end
    try:
        for _ in training.events():
            pass
        assert whole.valid is not None
        logits, labels = predict(training.part(training.evaluated), whole.valid, training.precision)
        reached, loss = (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()
    except Diverged:
        reached, loss = FAILED, None
    seconds = time.perf_counter() - started
    row = {"recipe": name, "kind": "training", "lr": lr, "seed": seed, "accuracy": reached, "loss": loss}
    keep({**row, "seconds": round(seconds, 1), "precision": training.precision})
    print(f"{name}: lr {lr:g}, seed {seed}: {reached:.2%} in {seconds:.0f} s", flush=True)
    return reached


def recipe_of(name: str, data: Path) -> Recipe:
    """The recipe `name`, with its images."""
    return prepare(params_of(name, data))


def main() -> None:
    """Runs the command that the command line names."""
    on_data = {"train": train, "ladders": ladders, "auto": auto}
    on_results = {"table": table, "doubling": doubling}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", default="table", choices=[*on_data, *on_results])
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA")
    parser.add_argument("recipes", nargs="*", metavar="recipe", help="all of the first table, unless named")
    parser.add_argument("--lr", type=float, help="the only rate that `train` trains at")
    given = parser.parse_intermixed_args()
    if given.lr:
        on_data["train"] = partial(train_at, given.lr)
    if unknown := set(given.recipes) - set(ALL_RECIPES):
        parser.error(f"no recipe {', '.join(sorted(unknown))}; there are {', '.join(ALL_RECIPES)}")
    if given.command in on_results:
        on_results[given.command]()
    elif given.data is None or not given.data.is_dir():
        parser.error(f"{given.command} needs DATA, a folder")
    else:
        on_data[given.command](given.data, given.recipes or list(RECIPES))


if __name__ == "__main__":
    main()
