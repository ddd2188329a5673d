"""The range test as a tracked step: curves, the rate that each rule suggests, and one final suggestion."""

import pandas as pd

from pipeline.history import initial_weights
from pipeline.models import weights
from pipeline.params import LadderParams, LrRangeParams
from pipeline.progress import Meter, meter, say
from pipeline.results import plots
from pipeline.steps.step import Result, Step, SuggestedRate, tracked
from pipeline.tracking.run import Run
from pipeline.training import range_test
from pipeline.training.range_test import CHOSEN_RULE, RULES, Curve, Suggestion
from pipeline.training.recipe import Recipe


def run(params: LrRangeParams, parent: Run | None = None) -> Result:
    """Runs the range test that `params` declare."""
    return test(initial_weights.prepare(params), params, parent)


def test(recipe: Recipe, ladder: LadderParams, parent: Run | None = None) -> Result:
    """Runs the range test of a recipe on `ladder`."""
    params = recipe.params.to(LrRangeParams, **ladder.model_dump(include=set(LadderParams.model_fields)))
    name = f"{params.dataset} {params.model} range test"
    tags = {"dataset": params.dataset, "model": params.model, "recipe": recipe.fingerprint()}
    tags |= weights.tags(recipe.pretrained)
    with tracked("lr_range", name, params.model_dump(), tags, parent) as step:
        step.run.tags({"range_test": recipe.fingerprint(ladder)})
        step.run.json("recipe.json", recipe.identity(ladder))
        ladders = recipe.num_ladders(ladder)
        per_epoch = -(-len(recipe.splits.train) // params.batch_size)
        with meter("lr_range", ladders * ladder.ladder_steps, per_epoch=per_epoch) as progress:
            curves = [_climb(recipe, ladder, repeat, ladders, progress) for repeat in range(ladders)]
        return _report(step, recipe.fingerprint(ladder), curves, range_test.suggest(curves))


def _climb(recipe: Recipe, ladder: LadderParams, repeat: int, ladders: int, progress: Meter) -> Curve:
    def look(lr: float, loss: float) -> None:
        progress.advance(lambda: f"ladder {repeat + 1}/{ladders}  lr {lr:.1e}  loss {loss:.3f}")

    curve = range_test.climb(recipe.ladder(ladder, repeat), ladder.ladder_steps, look)
    progress.total -= ladder.ladder_steps - len(curve.lr)
    reached = f"up to lr {curve.lr[-1]:.2e}" if len(curve.lr) else "no finite loss"
    say(f"range test {repeat + 1}/{ladders}: {len(curve.lr)} updates, {reached}")
    return curve


def _report(step: Step, fingerprint: str, curves: list[Curve], suggestion: Suggestion) -> Result:
    run = step.run
    table = pd.concat(
        pd.DataFrame({"repeat": i, "lr": curve.lr, "loss": curve.loss, "smoothed": curve.smoothed})
        for i, curve in enumerate(curves)
    )
    run.table("lr_range.csv", table)
    chosen = None if suggestion.lr is None else CHOSEN_RULE
    figure = plots.lr_range(table, suggestion.rates, chosen, suggestion.lr, step.name, suggestion.reason)
    run.figure("lr_range.png", figure)
    rates = {f"lr_range/{rule.replace('/', '_over_')}": rate for rule, rate in suggestion.rates.items()}
    numbers = {**rates, "lr_range/suggestion": suggestion.lr, "lr_range/spread": suggestion.spread}
    measured = {metric: value for metric, value in numbers.items() if value is not None}
    run.metrics(measured)
    run.json("lr_range.json", {"suggestion": suggestion.lr, "rule": chosen, "reason": suggestion.reason, **numbers})
    if suggestion.lr is None:
        result = f"no suggestion: {suggestion.reason}"
        run.tags({"no_suggestion": suggestion.reason})
    else:
        sides = ", ".join(f"{rule} {suggestion.rates[rule]:.2e}" for rule in RULES)
        agreement = f"repeats differ by x{suggestion.spread:.2f}" if len(curves) > 1 else "of one ladder"
        result = f"max_lr {suggestion.lr:.2e} ({sides}; {agreement})"
    found = SuggestedRate(fingerprint, run.id, suggestion.lr, suggestion.reason)
    return step.conclude(result, measured, handed={"suggested": found._asdict()})
