"""The range test as a tracked step: curves, what each rule suggests, and the one suggestion."""

import pandas as pd

from pipeline.params import LrRangeParams
from pipeline.progress import Meter, conclude, meter, say
from pipeline.results import plots
from pipeline.tracking import runs
from pipeline.tracking.run import Run
from pipeline.tracking.runs import Result
from pipeline.tracking.starting import prepare
from pipeline.training import range_test
from pipeline.training.assemble import climb, num_ladders
from pipeline.training.range_test import CHOSEN_RULE, RULES, Curve, Suggestion
from pipeline.training.setup import Setup, fingerprint

NO_SUGGESTION = "no suggestion: "  # in a summary, before the reason


def run(params: LrRangeParams, parent: Run | None = None) -> Result:
    """Runs the range test that `params` declare."""
    return test(prepare(params), params, parent)


def test(setup: Setup, params: LrRangeParams, parent: Run | None = None) -> Result:
    """Runs the range test of a prepared recipe."""
    name = f"{params.dataset} {params.model} range test"
    recipe = setup.recipe()
    with runs.start("lr_range", name, parent) as run:
        run.params(params.model_dump())
        run.tags({"dataset": params.dataset, "model": params.model, "recipe": fingerprint(recipe)})
        run.json("recipe.json", recipe)
        ladders = num_ladders(setup, params)
        per_epoch = -(-len(setup.splits.train) // params.batch_size)
        with meter("lr_range", ladders * params.num_steps, per_epoch=per_epoch) as progress:
            curves = [_climb(setup, params, repeat, ladders, progress) for repeat in range(ladders)]
        return _report(run, name, curves, range_test.suggest(curves))


def _climb(setup: Setup, params: LrRangeParams, repeat: int, ladders: int, progress: Meter) -> Curve:
    def look(lr: float, loss: float) -> None:
        progress.advance(lambda: f"ladder {repeat + 1}/{ladders}  lr {lr:.1e}  loss {loss:.3f}")

    curve = climb(setup, params, repeat, look)
    progress.total -= params.num_steps - len(curve.lr)
    reached = f"up to lr {curve.lr[-1]:.2e}" if len(curve.lr) else "no finite loss"
    say(f"range test {repeat + 1}/{ladders}: {len(curve.lr)} updates, {reached}")
    return curve


def _report(run: Run, name: str, curves: list[Curve], suggestion: Suggestion) -> Result:
    table = pd.concat(
        pd.DataFrame({"repeat": i, "lr": curve.lr, "loss": curve.loss, "smoothed": curve.smoothed})
        for i, curve in enumerate(curves)
    )
    run.table("lr_range.csv", table)
    chosen = None if suggestion.lr is None else CHOSEN_RULE
    figure = plots.lr_range(table, suggestion.rates, chosen, suggestion.lr, name, suggestion.reason)
    run.figure("lr_range.png", figure)
    rates = {f"lr_range/{rule.replace('/', '_over_')}": rate for rule, rate in suggestion.rates.items()}
    numbers = {**rates, "lr_range/suggestion": suggestion.lr, "lr_range/spread": suggestion.spread}
    measured = {metric: value for metric, value in numbers.items() if value is not None}
    run.metrics(measured)
    run.json("lr_range.json", {"suggestion": suggestion.lr, "rule": chosen, "reason": suggestion.reason, **numbers})
    if suggestion.lr is None:
        result = f"{NO_SUGGESTION}{suggestion.reason}"
        run.tags({"no_suggestion": suggestion.reason})
    else:
        sides = ", ".join(f"{rule} {suggestion.rates[rule]:.2e}" for rule in RULES)
        agreement = f"repeats differ by x{suggestion.spread:.2f}" if len(curves) > 1 else "of one ladder"
        result = f"max_lr {suggestion.lr:.2e} ({sides}; {agreement})"
    run.describe(name, f"**LR range test** — {result}")
    conclude(f"range test: {result}")
    return Result(run.id, f"Range test: {result}", measured)
