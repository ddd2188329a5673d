"""Compares cross-validations fold by fold, as a tracked step: which recipe is better, and how sure that is."""

from collections.abc import Sequence

import pandas as pd

from pipeline.history import cross_validation
from pipeline.history.cross_validation import CrossValidation
from pipeline.params import CompareParams
from pipeline.results import folds
from pipeline.steps import recipes
from pipeline.steps.recipes import ALPHA, LETTERS
from pipeline.steps.step import Result, tracked
from pipeline.tracking.run import Run


def run(params: CompareParams, found: Sequence[CrossValidation | None]) -> Result:
    """Compares all other cross-validations with the first. `found` has one for each of `params.runs`, or None."""
    validations = [each for each in found if each is not None]
    _check(params.runs, found)
    firsts = [each.evaluations[0] for each in validations]
    differing = recipes.differing(firsts)
    names = [recipes.name(letter, differing, place) for place, letter in enumerate(LETTERS[: len(found)])]
    title = recipes.title(firsts[0].params.set_name, names)
    with tracked("compare", title, params.model_dump(), {"dataset": firsts[0].params.dataset}) as step:
        for letter, each in zip(LETTERS, validations, strict=False):
            step.run.tags({f"arm.{letter}": each.run_id})
            step.run.metrics({f"compare/{letter}/accuracy": float(each.accuracies.mean())})
        step.run.table("parameters.csv", recipes.table(differing, len(found)))
        first, *others = validations
        alpha = ALPHA / len(others)
        lines = [_compare(step.run, first, each, place, alpha) for place, each in enumerate(others, start=1)]
        return recipes.conclude(step, names, lines)


def _check(runs: Sequence[str], found: Sequence[CrossValidation | None]) -> None:
    """Raises ValueError unless all runs are cross-validations with the same folds."""
    if len(found) == 1:
        raise ValueError(f"runs: {runs[0]} is one cross-validation, with nothing to compare it with")
    if len(found) > len(LETTERS):
        raise ValueError(f"runs: {len(found)} cross-validations; compare {len(LETTERS)} at a time at most")
    first, *others = [each for each in found if each is not None]
    if without_folds := [run_id for run_id, each in zip(runs, found, strict=True) if each is None]:
        raise ValueError(
            f"runs: {first.run_id} is a cross-validation and {without_folds[0]} is not: their test images differ"
        )
    for other in others:
        cross_validation.check_same_folds(first, other)


def _compare(run: Run, first: CrossValidation, other: CrossValidation, place: int, alpha: float) -> str:
    """Logs the accuracies of both in each fold, and the difference with its interval. Returns a sentence about it."""
    letter, (a, b) = LETTERS[place], (first.accuracies, other.accuracies)
    images = [len(each.predictions) for each in first.evaluations]
    columns = {"fold": range(1, len(a) + 1), "images": images, "accuracy_A": a, f"accuracy_{letter}": b}
    run.table(f"folds_{letter}.csv", pd.DataFrame({**columns, "difference": b - a}))
    found = folds.mean(b - a, 1 - alpha)
    numbers = {"difference": found.value}
    if found.standard_error:
        numbers |= {"standard_error": found.standard_error}
        numbers |= {"over_folds_low": found.low, "over_folds_high": found.high}
    run.metrics({f"compare/{letter}/{name}": value for name, value in numbers.items()})
    return (
        f"{letter} {b.mean():.2%} against A {a.mean():.2%} in the same {len(a)} folds of {sum(images):,} images: "
        f"{100 * found.value:+.2f} points ({folds.in_words(found, alpha)}; folds won by {letter}: {(b > a).sum()}, "
        f"by A: {(b < a).sum()}): {folds.verdict(found, 'A', letter)}"
    )
