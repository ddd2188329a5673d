"""The results of `benchmarks.regret`: their rows, the table of regrets, and the figure."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.contest import PROJECT
from benchmarks.regret_recipes import FAR, HELD_OUT, RECIPES, parameters
from pipeline.params import TrainParams
from pipeline.settings import resolve
from pipeline.training import range_test, short_cycles
from pipeline.training.range_test import Curve
from pipeline.training.short_cycles import Cycle

RESULTS = PROJECT / "benchmarks" / "regret.jsonl"
FIGURE = PROJECT / "docs" / "regret.png"
FAILED = 0.0  # accuracy of a training that diverged


def keep(row: Mapping[str, Any]) -> None:
    """Adds `row` to the results."""
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")


def rows_of(name: str, kind: str) -> list[dict[str, Any]]:
    """The results of a recipe of one kind: "training", "ladder", "auto" or "rule"."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [row for row in map(json.loads, lines) if (row["recipe"], row["kind"]) == (name, kind)]


def accuracies_of(name: str) -> dict[float, dict[int, float]]:
    """The accuracies of the trainings of a recipe so far, by rate and seed."""
    found: dict[float, dict[int, float]] = {}
    for row in rows_of(name, "training"):
        found.setdefault(row["lr"], {})[row["seed"]] = row["accuracy"]
    return found


def means_of(name: str) -> dict[float, float]:
    """The mean accuracy of a recipe over its seeds, by rate."""
    return {lr: fmean(seeds.values()) for lr, seeds in accuracies_of(name).items()}


def params_of(name: str, data: Path = Path("data")) -> TrainParams:
    """The parameters of the recipe `name`, with its images in the folder `data`."""
    return cast(TrainParams, resolve("train", {key: str(value) for key, value in parameters(name, data).items()}))


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
        for row in rows_of(name, "ladder")
    ]
    found: dict[str, float | None] = dict(range_test.suggest(curves).rates) if curves else {}
    found["usual rate"] = short_cycles.usual_rate(params.optimizer, params.batch_size, params.weights != "none")
    chosen = rows_of(name, "auto")
    found |= {row["rule"]: row["lr"] for row in rows_of(name, "rule")}
    return {**found, "auto": chosen[-1]["lr"]} if chosen else found


def table() -> None:
    """Prints a Markdown table of the regret of every rule, recipe by recipe, in points of accuracy, and draws it."""
    rows = _regrets()
    rules = list(dict.fromkeys(rule for row in rows.values() for rule in row))
    print(f"| recipe | best rate | accuracy there | {' | '.join(rules)} |\n|---|---|---|{'---|' * len(rules)}")
    for name, row in rows.items():
        means = means_of(name)
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
        params, means, chosen = params_of(name), means_of(name), rows_of(name, "auto")[-1]
        best = max(means, key=lambda lr: means[lr])
        usual = short_cycles.usual_rate(params.optimizer, params.batch_size, params.weights != "none")
        single = short_cycles.choose([Cycle(**cycle) for cycle in chosen["cycles"]], usual, weights_grow=False).lr
        assert single is not None
        cells = [f"{lr:.3g}, {100 * regret(means, lr):.2f}" for lr in (short_cycles.LIFT * single, chosen["lr"])]
        rates = f"{usual:g} | {single**2 / usual:.2g} | {best:.3g}"
        print(f"| {name} | {rates} | {means[best]:.2%} | {' | '.join(cells)} |")


def _regrets() -> dict[str, dict[str, float]]:
    """The regret of every rule for each recipe that has a grid, in points of accuracy."""
    rows = {}
    for name in {**RECIPES, **HELD_OUT}:
        if means := means_of(name):
            rows[name] = {rule: 100 * regret(means, lr) for rule, lr in rates_by_rule(name, params_of(name)).items()}
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
