"""Compares trainings on the same test images, as a tracked step: which is better, where, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from pipeline.history import cross_validation, evaluation, label_versions, lookup
from pipeline.history.evaluation import Evaluation
from pipeline.params import CompareParams
from pipeline.progress import say
from pipeline.results import plots
from pipeline.results.arms import Arm, Verdict, judge, network_test, per_class
from pipeline.steps import compare_folds, disagreements, recipes
from pipeline.steps.recipes import ALPHA, DATA_TAG, LETTERS
from pipeline.steps.step import Result, tracked
from pipeline.text import visible
from pipeline.tracking.run import Run

CURVES = ("train/loss", "train/accuracy", "valid/loss", "valid/accuracy")
# Tags of a training that get a row in parameters.csv if they differ.
SHOWN_TAGS = ("git.commit", "git.dirty", "device", "precision", DATA_TAG)


@dataclass(frozen=True)
class Compared:
    """An arm with its evaluations and a name that distinguishes it from the others."""

    arm: Arm
    runs: Sequence[Evaluation]
    name: str


def run(params: CompareParams) -> Result:
    """Finds the evaluations of `params.runs`, and compares the others with the first; of cross-validations, by fold."""
    validations = [cross_validation.find(asked) for asked in params.runs]
    if any(validations):
        return compare_folds.run(params, validations)
    found = [each for asked in params.runs for each in evaluation.find(asked)]
    _check(found)
    found, images = label_versions.shared(found)
    first, *others = compared = _arms(found)
    title = recipes.title(found[0].params.set_name, [each.name for each in compared])
    tags = {"dataset": found[0].params.dataset, "test.digest": found[0].test_digest}
    with tracked("compare", title, params.model_dump(), tags) as step:
        run = step.run
        run.tags({f"arm.{each.arm.name}": " ".join(one.run_id for one in each.runs) for each in compared})
        run.metrics({f"compare/{each.arm.name}/accuracy": each.arm.accuracies.mean() for each in compared})
        _describe_arms(run, compared)
        verdicts = [_compare(run, first, other, ALPHA / len(others), params) for other in others]
        changed = [_label_changes(run, first, other) for other in others]
        lines = [images, *(verdict.sentence for verdict in verdicts), *changed]
        return recipes.conclude(step, [each.name for each in compared], [line for line in lines if line])


def _check(found: Sequence[Evaluation]) -> None:
    """Raises ValueError for a single evaluation, and for one that is named twice."""
    if len(found) == 1:
        raise ValueError(f"runs: {found[0].run_id} is one evaluation, with nothing to compare it with")
    named = [each.run_id for each in found]
    if repeated := [run_id for run_id in named if named.count(run_id) > 1]:
        raise ValueError(
            f"runs: evaluation {repeated[0]} is named more than once, as itself or by a run that leads to it"
        )


def _arms(found: Sequence[Evaluation]) -> list[Compared]:
    """One arm per recipe, in the order of `found`. If all evaluations have the same recipe, each is an arm."""
    groups: dict[tuple[str, ...], list[Evaluation]] = {}
    for each in found:
        groups.setdefault(tuple(recipes.recipe(each).values()), []).append(each)
    series = list(groups.values()) if len(groups) > 1 else [[each] for each in found]
    if len(series) > len(LETTERS):
        raise ValueError(f"runs: {len(series)} recipes; compare {len(LETTERS)} at a time at most")
    for same in series:
        _check_seeds(same)
    differing = recipes.differing([same[0] for same in series])
    groups_of_images = evaluation.groups_of(found)
    return [
        Compared(
            Arm(letter, np.array([each.correct for each in same]), groups_of_images),
            same,
            recipes.name(letter, differing, place),
        )
        for place, (letter, same) in enumerate(zip(LETTERS, series, strict=False))
    ]


def _check_seeds(same: Sequence[Evaluation]) -> None:
    """Raises ValueError if two evaluations of one recipe have the same seed."""
    by_seed: dict[int, Evaluation] = {}
    for each in same:
        if (other := by_seed.setdefault(each.params.seed, each)) is not each:
            raise ValueError(
                f"runs: evaluations {other.run_id} and {each.run_id} have the same recipe and seed; give one of them"
            )


def _describe_arms(run: Run, compared: Sequence[Compared]) -> None:
    """Logs the arms, the parameters that differ, and calibration and curves side by side."""
    firsts = [each.runs[0] for each in compared]
    differing = recipes.differing(firsts)
    tags = {name: [visible(each.tags.get(name, "")) for each in firsts] for name in SHOWN_TAGS}
    for name, values in {"labels": [visible(each.params.labels) for each in firsts], **tags}.items():
        if len(set(values)) > 1:
            differing[name] = values
    run.table("parameters.csv", recipes.table(differing, len(compared)))
    members = [(each, one) for each in compared for one in each.runs]
    run.table("arms.csv", pd.DataFrame([_arm_row(each, one) for each, one in members]))
    bins = {each.name: _pooled([one.reliability for one in each.runs]) for each in compared}
    run.table("calibration.csv", pd.concat([table.assign(arm=name[0]) for name, table in bins.items()]))
    run.figure("calibration.png", plots.calibrations(bins, f"Calibration: {_calibration_errors(compared)}"))
    curves = [lookup.epochs(one.train_run_id, CURVES).assign(arm=each.name, run=one.run_id) for each, one in members]
    run.figure("curves.png", plots.curves_beside(pd.concat(curves), "Training and validation"))


def _arm_row(each: Compared, one: Evaluation) -> dict[str, object]:
    """The row of arms.csv for the evaluation `one` of an arm."""
    numbers = {name: one.metrics.get(f"test/{name}", np.nan) for name in ("accuracy", "loss", "macro_f1", "ece")}
    ids = {"arm": each.arm.name, "seed": one.params.seed, "training": one.train_run_id, "evaluation": one.run_id}
    return {**ids, **numbers}


def _pooled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of bins for several networks: means over all their images."""
    count = np.sum([table["count"] for table in tables], axis=0)
    sums = {
        name: np.nansum([table[name] * table["count"] for table in tables], axis=0)
        for name in ("confidence", "accuracy")
    }
    # An empty bin gives NaN.
    means = {name: total / np.where(count, count, np.nan) for name, total in sums.items()}
    return tables[0].assign(count=count, **means)


def _calibration_errors(compared: Sequence[Compared]) -> str:
    means = [np.mean([one.metrics.get("test/ece", np.nan) for one in each.runs]) for each in compared]
    return ", ".join(f"{each.arm.name} {mean:.4f}" for each, mean in zip(compared, means, strict=True)) + " (ECE)"


def _compare(run: Run, first: Compared, other: Compared, alpha: float, params: CompareParams) -> Verdict:
    """Compares `other` with `first`, logs the numbers and tables, and returns the verdict."""
    a, b = first.arm, other.arm
    verdict = judge(a, b, alpha, params.seed)
    run.metrics({f"compare/{b.name}/{name}": value for name, value in verdict.numbers.items()})
    labels = first.runs[0].predictions["true"].to_numpy()
    run.table(f"per_class_{b.name}.csv", per_class(labels, a, b, params.seed))
    rows = [
        {a.name: one.run_id, b.name: another.run_id, **network_test(correct, others, a.groups)}
        for (one, correct), (another, others) in product(
            zip(first.runs, a.correct, strict=True), zip(other.runs, b.correct, strict=True)
        )
    ]
    run.table(f"mcnemar_{b.name}.csv", pd.DataFrame(rows))
    if params.num_images:
        pair = {each.arm.name: each.runs[0] for each in (first, other)}
        disagreements.show(run, pair, params)
    return verdict


def _label_changes(run: Run, first: Compared, other: Compared) -> str:
    """Logs which labels of the set differ between two arms. Returns a line about them; empty if none does."""
    one, another = first.runs[0], other.runs[0]
    if one.tags.get(DATA_TAG) == another.tags.get(DATA_TAG):
        return ""
    try:
        table = label_versions.changes(one, another)
    except ValueError as error:
        say(f"no table of label changes: {error}")
        return ""
    if table.empty:
        return ""
    run.table(f"label_changes_{other.arm.name}.csv", table)
    num_excluded, num_new = int(table["excluded"].sum()), int((table["before"] == "").sum())
    corrected = len(table) - num_excluded - num_new
    return (
        f"labels of {other.arm.name} against {first.arm.name} (label_changes_{other.arm.name}.csv): "
        f"{corrected:,} changed, {num_excluded:,} photos excluded, {num_new:,} added"
    )
