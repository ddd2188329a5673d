"""The range test as a tracked step: it suggests a peak rate, by short cycles or by a rule on ladders of rates."""

from typing import Any

import pandas as pd

from pipeline.history import finished_cycles, initial_weights
from pipeline.models import weights
from pipeline.params import LadderParams, LrRangeParams, TrainParams
from pipeline.progress import Meter, meter, say
from pipeline.results import plots
from pipeline.steps.step import Result, Step, SuggestedRate, tracked
from pipeline.tracking.run import Run
from pipeline.training import range_test, short_cycles
from pipeline.training.range_test import RULES, Curve, Suggestion
from pipeline.training.recipe import Recipe
from pipeline.training.short_cycles import Choice, Cycle, Plan

WIDE = 2.0  # ratio of the highest to the lowest rate of the ladders, above which the suggestion is in doubt


def run(params: LrRangeParams, parent: Run | None = None) -> Result:
    """Runs the range test that `params` declare."""
    if params.max_lr != "auto":
        say(f"max_lr={params.max_lr:g} of the command or the experiment file is ignored: the range test looks for it")
    return test(initial_weights.prepare(params), params, parent)


def test(recipe: Recipe, ladder: LadderParams, parent: Run | None = None) -> Result:
    """Runs the range test of a recipe, on `ladder` if the recipe's rule needs ladders."""
    assert isinstance(recipe.params, TrainParams)
    params = recipe.params.to(LrRangeParams, **ladder.model_dump(include=set(LadderParams.model_fields)))
    fingerprint = recipe.fingerprint(ladder)
    tags = {"dataset": params.dataset, "model": params.model, "recipe": recipe.fingerprint()}
    tags |= weights.tags(recipe.pretrained)
    with tracked("lr_range", f"{params.set_name} {params.model} range test", params.model_dump(), tags, parent) as step:
        step.run.tags({"range_test": fingerprint})
        step.run.json("recipe.json", recipe.identity(ladder))
        if params.lr_rule == "cycles":
            if given := [name for name in LadderParams.own() if getattr(ladder, name) != getattr(LadderParams(), name)]:
                say(f"{', '.join(given)}: ignored, because lr_rule=cycles climbs no ladder")
            return _by_cycles(step, recipe, fingerprint)
        return _by_ladders(step, recipe, ladder, params.lr_rule, fingerprint)


def _by_cycles(step: Step, recipe: Recipe, fingerprint: str) -> Result:
    params = recipe.params
    assert isinstance(params, TrainParams)
    total = params.epochs * recipe.updates_per_epoch
    usual = short_cycles.usual_rate(params.optimizer, params.batch_size, recipe.pretrained is not None)
    plan = short_cycles.plan(params.epochs, total)
    if plan is None:
        return _conclude(step, fingerprint, short_cycles.untested(usual, total), "usual", {})
    share = plan.most_cycles * plan.num_updates / total
    say(
        f"range test: at most {plan.most_cycles} short cycles of {plan.num_updates} updates, {share:.0%} of the "
        f"training's {total:,}"
    )
    cycles, updates = _cycles(step, recipe, plan, usual, fingerprint)
    choice = short_cycles.choose(cycles, usual, short_cycles.weights_grow(recipe))
    step.run.table("short_cycle_updates.csv", updates)
    figure = plots.short_cycles(_table(cycles), updates, vars(choice), step.name, choice.reason)
    step.run.figure("lr_range.png", figure)
    numbers: dict[str, float | None] = {"cycles": len(cycles), "cycle_updates": plan.num_updates}
    return _conclude(step, fingerprint, choice, "cycles", numbers)


def _cycles(step: Step, recipe: Recipe, plan: Plan, usual: float, fingerprint: str) -> tuple[list[Cycle], pd.DataFrame]:
    """The short cycles of `plan`, and the rate and loss of each of their updates.

    Cycles that an interrupted range test has finished are not repeated.
    """
    known = finished_cycles.find(fingerprint, recipe.params.seed)
    done: list[Cycle] = []
    updates: list[dict[str, float]] = []
    with meter("lr_range", plan.most_cycles * plan.num_updates, per_epoch=recipe.updates_per_epoch) as progress:

        def measure(lr: float) -> Cycle:
            if lr in known:
                progress.total -= plan.num_updates
                say(f"short cycle at lr {lr:.2e}: finished by run {known[lr].run_id}, not repeated")
                cycle = known[lr].cycle
            else:
                cycle = _run_cycle(recipe, lr, plan.num_updates, progress, updates)
            done.append(cycle)
            step.run.table("short_cycles.csv", _table(done))
            return cycle

        cycles = short_cycles.walk(measure, usual, plan.most_cycles)
        progress.total -= (plan.most_cycles - len(cycles)) * plan.num_updates
    return cycles, pd.DataFrame(updates, columns=["peak", "update", "lr", "loss"])


def _run_cycle(recipe: Recipe, lr: float, num_updates: int, progress: Meter, updates: list[dict[str, float]]) -> Cycle:
    first = len(updates)

    def on_update(rate: float, loss: float) -> None:
        updates.append({"peak": lr, "update": len(updates) - first, "lr": rate, "loss": loss})
        progress.advance(lambda: f"short cycle, peak {lr:.1e}  lr {rate:.1e}  loss {loss:.3f}")

    cycle = short_cycles.run(short_cycles.training(recipe, lr, num_updates), lr, num_updates, on_update)
    reached = "" if cycle.accuracy is None else f", validation accuracy {cycle.accuracy:.2%}"
    say(f"short cycle at lr {lr:.2e}: loss {cycle.loss:.4f}{reached}")
    return cycle


def _table(cycles: list[Cycle]) -> pd.DataFrame:
    return pd.DataFrame([vars(cycle) for cycle in sorted(cycles, key=lambda cycle: cycle.lr)])


def _by_ladders(step: Step, recipe: Recipe, ladder: LadderParams, rule: str, fingerprint: str) -> Result:
    ladders = recipe.num_ladders(ladder)
    with meter("lr_range", ladders * ladder.ladder_steps, per_epoch=recipe.updates_per_epoch) as progress:
        curves = [_climb(recipe, ladder, repeat, ladders, progress) for repeat in range(ladders)]
    suggestion = range_test.suggest(curves, rule)
    table = pd.concat(
        pd.DataFrame({"repeat": i, "lr": curve.lr, "loss": curve.loss, "smoothed": curve.smoothed})
        for i, curve in enumerate(curves)
    )
    step.run.table("lr_range.csv", table)
    named = None if suggestion.lr is None else rule
    figure = plots.lr_range(table, suggestion.rates, named, suggestion.lr, step.name, suggestion.reason)
    step.run.figure("lr_range.png", figure)
    numbers = {name.replace("/", "_over_"): rate for name, rate in suggestion.rates.items()}
    return _conclude(step, fingerprint, _as_choice(suggestion), rule, {**numbers, "spread": suggestion.spread})


def _climb(recipe: Recipe, ladder: LadderParams, repeat: int, ladders: int, progress: Meter) -> Curve:
    def on_update(lr: float, loss: float) -> None:
        progress.advance(lambda: f"ladder {repeat + 1}/{ladders}  lr {lr:.1e}  loss {loss:.3f}")

    curve = range_test.climb(range_test.training(recipe, ladder, repeat), ladder.ladder_steps, on_update)
    progress.total -= ladder.ladder_steps - len(curve.lr)
    reached = f"up to lr {curve.lr[-1]:.2e}" if len(curve.lr) else "no finite loss"
    say(f"range test {repeat + 1}/{ladders}: {len(curve.lr)} updates, {reached}")
    return curve


def _as_choice(suggestion: Suggestion) -> Choice:
    """The suggestion of ladders, with a doubt if their rates differ much."""
    doubt = ""
    if suggestion.spread is not None and suggestion.spread > WIDE:
        doubt = (
            f"the ladders disagree by a factor of {suggestion.spread:.1f}: give max_lr, or let lr_rule=cycles choose it"
        )
    return Choice(suggestion.lr, None, None, suggestion.reason, doubt)


def _conclude(step: Step, fingerprint: str, choice: Choice, rule: str, more: dict[str, float | None]) -> Result:
    found: dict[str, float | None] = {"suggestion": choice.lr, "low": choice.low, "high": choice.high, **more}
    numbers = {f"lr_range/{name}": value for name, value in found.items() if value is not None}
    step.run.metrics(numbers)
    step.run.json("lr_range.json", {"rule": rule, "reason": choice.reason, "doubt": choice.doubt, **found})
    if choice.lr is None:
        result = f"no suggestion: {choice.reason}"
        step.run.tags({"no_suggestion": choice.reason})
    else:
        result = f"max_lr {choice.lr:.2e} ({_words(choice, found, rule)})"
    if choice.doubt:
        say(f"warning: {choice.doubt}")
        step.run.tags({"doubt": choice.doubt})
    handed = SuggestedRate(fingerprint, step.run.id, choice.lr, choice.reason, choice.doubt)
    return step.conclude(result, numbers, handed={"suggested": handed._asdict()})


def _words(choice: Choice, found: dict[str, Any], rule: str) -> str:
    if rule == "cycles":
        band = "" if choice.low is None else f"; {choice.low:.2e} to {choice.high:.2e} did about as well"
        return f"{found['cycles']:.0f} short cycles of {found['cycle_updates']:.0f} updates{band}"
    if rule == "usual":
        return "a usual rate"
    sides = ", ".join(f"{name} {found[name.replace('/', '_over_')]:.2e}" for name in RULES)
    spread = found["spread"]
    return f"{rule}; {sides}" + ("" if spread in (None, 1.0) else f"; ladders differ by x{spread:.2f}")
