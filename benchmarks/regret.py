"""How much accuracy does a rule for the peak rate cost? Whole trainings at a grid of rates, and where each rule lands.

python -m benchmarks.regret train DATA [recipe ...]    trains the grid, for hours; a second start continues
python -m benchmarks.regret ladders DATA [recipe ...]  climbs the range test's ladders
python -m benchmarks.regret auto DATA [recipe ...]     chooses each rate as max_lr=auto does
python -m benchmarks.regret table                      prints regret by rule, and draws docs/regret.png
python -m benchmarks.regret doubling                   prints whether to double a rate far above the usual one

DATA holds the folders cifar10 (train/ and test/ of JPEG files), photos and trashnet. Every number is a line of
benchmarks/regret.jsonl. The regret of a rule is the best mean accuracy on validation, over the rates of the grid, minus
the accuracy at the rate that the rule picks, read off between the grid's rates on a logarithmic axis.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch.nn.functional as F

from benchmarks.contest import PROJECT
from benchmarks.regret_recipes import FAR, HELD_OUT, MORE_SEEDS, RECIPES, parameters
from pipeline.history.initial_weights import prepare
from pipeline.params import LadderParams, TrainParams
from pipeline.settings import resolve
from pipeline.training import range_test, short_cycles
from pipeline.training.range_test import Curve
from pipeline.training.recipe import Recipe
from pipeline.training.short_cycles import Cycle, Plan
from pipeline.training.training import Diverged
from pipeline.training.update import predict

RESULTS = PROJECT / "benchmarks" / "regret.jsonl"
FIGURE = PROJECT / "docs" / "regret.png"
STEP = math.sqrt(10)  # of the grid: half decades
START = {"sgd": 0.3, "adamw": 3e-3, "muon": 0.03}  # from where the grid is walked both ways
SEEDS = 3  # trainings per rate, for rates that do nearly as well as the best; one for the others
NEAR = 0.05  # of accuracy, below the best: such rates are trained with all seeds
WORSE = 0.04  # of accuracy, below the best: the grid ends there
WIDEST = 2.1  # decades from START: the grid ends there, even if no accuracy falls
FAILED = 0.0  # accuracy of a training that diverged


def train(data: Path, names: list[str]) -> None:
    """Trains each recipe from a usual rate both ways until accuracy has clearly fallen, then beside the best.

    Then it repeats the rates that do nearly as well as the best with other seeds, and so the rate that `auto` has
    chosen, if there is one.
    """
    for name in names:
        recipe = recipe_of(name, data)
        known = _accuracies(name)
        for lr in _walk(known, START[recipe.params.optimizer]):
            if lr not in known:
                known[lr] = {0: _train(name, recipe, lr, seed=0)}
        best = max(_mean(known, lr) for lr in known)
        near = [lr for lr in sorted(known) if _mean(known, lr) >= best - NEAR]
        for lr in [*near, *(row["lr"] for row in _rows(name, "auto")[-1:])]:
            for seed in range(MORE_SEEDS.get(name, SEEDS)):
                if seed not in known.setdefault(lr, {}):
                    known[lr][seed] = _train(name, recipe, lr, seed)


def ladders(data: Path, names: list[str]) -> None:
    """Climbs the ladders of each recipe, three where the program climbs one, and keeps their losses."""
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
        params = cast(TrainParams, recipe.params)
        total = params.epochs * recipe.updates_per_epoch
        usual = short_cycles.usual_rate(params.optimizer, params.batch_size, recipe.pretrained is not None)
        plan = short_cycles.plan(params.epochs, total) or Plan(0, 0)
        started = time.perf_counter()
        if plan.most_cycles:
            cycles = short_cycles.walk(partial(_short_cycle, recipe, plan.num_updates), usual, plan.most_cycles)
            choice = short_cycles.choose(cycles, usual, short_cycles.has_batch_norms(recipe))
        else:
            cycles, choice = [], short_cycles.untested(usual, total)
        seconds, cost = round(time.perf_counter() - started, 1), len(cycles) * plan.num_updates / total
        trained = [vars(cycle) for cycle in cycles]
        keep({"recipe": name, "kind": "auto", **vars(choice), "cost": cost, "seconds": seconds, "cycles": trained})
        print(f"{name}: {choice.lr}, {len(cycles)} cycles of {plan.num_updates} updates, {cost:.0%}", flush=True)


def _short_cycle(recipe: Recipe, num_updates: int, lr: float) -> Cycle:
    return short_cycles.run(short_cycles.training(recipe, lr, num_updates), lr, num_updates)


def regret(accuracies: Mapping[float, float], lr: float | None) -> float:
    """The best accuracy of the grid minus the accuracy at `lr`.

    A line between the two nearest rates gives the accuracy. Beyond the grid, the accuracy at its end counts. None is a
    rule that picks no rate: it counts as a training that failed.
    """
    best = max(accuracies.values())
    if lr is None:
        return best - FAILED
    rates = sorted(accuracies)
    return best - float(np.interp(math.log(lr), np.log(rates), [accuracies[rate] for rate in rates]))


def rates_by_rule(name: str, params: TrainParams) -> dict[str, float | None]:
    """The rate that each rule picks for a recipe: on its ladders, by short cycles, or in another library."""
    curves = [
        Curve(np.array(row["lr"]), np.array(row["loss"]), range_test.smooth(np.array(row["loss"])))
        for row in _rows(name, "ladder")
    ]
    found: dict[str, float | None] = dict(range_test.suggest(curves).rates) if curves else {}
    found["usual rate"] = short_cycles.usual_rate(params.optimizer, params.batch_size, params.weights != "none")
    chosen = _rows(name, "auto")
    found |= {row["rule"]: row["lr"] for row in _rows(name, "rule")}
    return {**found, "auto": chosen[-1]["lr"]} if chosen else found


def table() -> None:
    """Prints a Markdown table of the regret of every rule, recipe by recipe, in points of accuracy, and draws it."""
    rows = _regrets()
    rules = list(dict.fromkeys(rule for row in rows.values() for rule in row))
    print(f"| recipe | best rate | accuracy there | {' | '.join(rules)} |\n|---|---|---|{'---|' * len(rules)}")
    for name, row in rows.items():
        means = _means(name)
        best = max(means, key=lambda lr: means[lr])
        cells = " | ".join(f"{row[rule]:.2f}" if rule in row else "" for rule in rules)
        unseen = " (unseen)" if name in HELD_OUT else ""
        print(f"| {name}{unseen} | {best:.3g} | {means[best]:.2%} | {cells} |")
    for what, of in (("mean", fmean), ("largest", max)):
        values = [of([row[rule] for row in rows.values() if rule in row]) for rule in rules]
        print(f"| **{what}** | | | {' | '.join(f'{value:.2f}' for value in values)} |")
    _draw({rule: [row[rule] for row in rows.values() if rule in row] for rule in rules})


def doubling() -> None:
    """Prints a Markdown table of the recipes whose cycles are best far above the usual rate, in points of accuracy."""
    head = ["recipe", "usual rate", "best of the cycles", "best rate", "accuracy there", "doubled: rate, regret"]
    print(f"| {' | '.join([*head, 'auto: rate, regret'])} |")
    print(f"|{'---|' * 7}")
    for name in [*FAR, "fast sgd b64"]:
        params, means, chosen = _params(name), _means(name), _rows(name, "auto")[-1]
        best = max(means, key=lambda lr: means[lr])
        usual = short_cycles.usual_rate(params.optimizer, params.batch_size, params.weights != "none")
        single = short_cycles.choose([Cycle(**cycle) for cycle in chosen["cycles"]], usual, has_batch_norms=False).lr
        assert single is not None
        cells = [f"{lr:.3g}, {100 * regret(means, lr):.2f}" for lr in (short_cycles.LIFT * single, chosen["lr"])]
        rates = f"{usual:g} | {single**2 / usual:.2g} | {best:.3g}"
        print(f"| {name} | {rates} | {means[best]:.2%} | {' | '.join(cells)} |")


def _params(name: str) -> TrainParams:
    return cast(TrainParams, resolve("train", _flags(name, Path("data"))))


def _regrets() -> dict[str, dict[str, float]]:
    """The regret of every rule for each recipe that has a grid, in points of accuracy."""
    rows = {}
    for name in {**RECIPES, **HELD_OUT}:
        if means := _means(name):
            rows[name] = {rule: 100 * regret(means, lr) for rule, lr in rates_by_rule(name, _params(name)).items()}
    return rows


def _draw(regrets: Mapping[str, Sequence[float]]) -> None:
    """Draws a dot per recipe and a bar at the mean, for each rule, the best rule on top."""
    order = sorted(regrets, key=lambda rule: -fmean(regrets[rule]))
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(order) + 1), layout="constrained")
    for place, rule in enumerate(order):
        axes.plot(regrets[rule], [place] * len(regrets[rule]), "o", color="tab:blue", alpha=0.6)
        axes.plot(fmean(regrets[rule]), place, "|", color="tab:orange", markersize=22, markeredgewidth=3)
    axes.set_yticks(range(len(order)), [f"{rule} (mean {fmean(regrets[rule]):.2f})" for rule in order])
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, 0.5, 1, 2, 5, 10, 20, 50], ["0", "0.5", "1", "2", "5", "10", "20", "50"])
    axes.set(xlabel="regret: points of validation accuracy lost to the best rate", xlim=(-0.05, None))
    axes.grid(axis="x", alpha=0.25)
    figure.savefig(FIGURE, dpi=120)


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


def _means(name: str) -> dict[float, float]:
    return {lr: fmean(seeds.values()) for lr, seeds in _accuracies(name).items()}


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
    return prepare(cast(TrainParams, resolve("train", _flags(name, data))))


def _flags(name: str, data: Path) -> dict[str, str]:
    return {key: str(value) for key, value in parameters(name, data).items()}


def _accuracies(name: str) -> dict[float, dict[int, float]]:
    """The accuracies of the trainings of a recipe so far, by rate and seed."""
    found: dict[float, dict[int, float]] = {}
    for row in _rows(name, "training"):
        found.setdefault(row["lr"], {})[row["seed"]] = row["accuracy"]
    return found


def _rows(name: str, kind: str) -> list[dict[str, Any]]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [row for row in map(json.loads, lines) if (row["recipe"], row["kind"]) == (name, kind)]


def keep(row: Mapping[str, Any]) -> None:
    """Adds `row` to the results."""
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    command, *rest = sys.argv[1:] or ["table"]
    if command in ("table", "doubling"):
        {"table": table, "doubling": doubling}[command]()
    else:
        {"train": train, "ladders": ladders, "auto": auto}[command](Path(rest[0]), rest[1:] or list(RECIPES))
