"""Trains with several seeds under one parent run, which shows the mean and the spread of the results."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from pipeline.params import TrainStepParams
from pipeline.results import seeds
from pipeline.steps import ensemble, plan
from pipeline.steps.step import Result, tracked
from pipeline.tracking.run import Run

SHOWN = {"test/accuracy": "test accuracy", "weights/best_valid_accuracy": "validation accuracy"}


def run(params: TrainStepParams, train: Callable[..., Result]) -> Result:
    """Trains with `num_seeds` seeds, or continues the series that `resume` names."""
    title = f"{params.set_name} {params.model}, {params.num_seeds} seeds"
    planned = plan.repeated(params, ("train",))
    done = plan.finished(params.resume)
    own = None if params.resume else params.model_dump(exclude={"resume"})
    tags = {"dataset": params.dataset, "model": params.model}
    with tracked("seeds", title, own, tags, reopen=params.resume) as step:
        results = plan.follow(step.run, planned, params, {"train": train}, done)
        series = [(each.seed, result.metrics) for each, result in zip(planned, results, strict=True)]
        made = ensemble.run(params, [result.run_id for result in results], step.run)
        summary = f"{report(step.run, series)}{_together(made)}"
        return step.conclude(summary, before=f"\n{plan.table_of(planned, results)}\n\n")


def report(run: Run, series: Sequence[tuple[int, Mapping[str, float]]]) -> str:
    """Logs each seed's numbers as seeds.csv, and their means and deviations as metrics. Returns a summary in one line.

    `series` has one pair per step: a seed and numbers of that seed. The ends of intervals are left out: they belong to
    one network, and their mean is not the end of an interval.
    """
    by_seed: dict[int, dict[str, float]] = {}
    for seed, numbers in series:
        kept = {name: value for name, value in numbers.items() if not name.endswith(("_low", "_high"))}
        by_seed.setdefault(seed, {}).update(kept)
    table = pd.DataFrame.from_dict(by_seed, orient="index")
    run.table("seeds.csv", table.rename_axis("seed").reset_index())
    run.metrics(seeds.spread(table))
    shown = [f"{words} {_spread(table[name])}" for name, words in SHOWN.items() if name in table]
    return f"{len(table)} seeds" + (f", {'; '.join(shown)}" if shown else "")


def _together(made: Result) -> str:
    reached = made.metrics.get(ensemble.VALID_ACCURACY)
    return "" if reached is None else f"; all networks together {reached:.2%}"


def _spread(values: pd.Series) -> str:
    return f"{values.mean():.2%} (sd {100 * values.std(ddof=1):.2f} points, {values.min():.2%} to {values.max():.2%})"
