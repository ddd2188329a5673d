"""Combines the evaluations of all folds: their mean with its corrected error, and a prediction of every image."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.history import evaluation
from pipeline.progress import say
from pipeline.results import folds
from pipeline.steps.plan import Planned
from pipeline.steps.step import Result
from pipeline.tracking.run import Run

ACCURACY = "test/accuracy"


def report(run: Run, planned: Sequence[Planned], results: Sequence[Result]) -> str:
    """Logs folds.csv, predictions.csv and means over the folds. Returns a summary in one line.

    The ends of intervals are left out of the means, because they belong to one fold.
    """
    by_fold: dict[int, dict[str, float]] = {}
    for each, result in zip(planned, results, strict=True):
        kept = {name: value for name, value in result.metrics.items() if not name.endswith(("_low", "_high"))}
        by_fold.setdefault(each.fold, {}).update(kept)
    table = pd.DataFrame.from_dict(by_fold, orient="index")
    run.table("folds.csv", table.rename_axis("fold").reset_index())
    run.metrics({str(name): float(value) for name, value in table.mean().items()})
    if ACCURACY not in table:
        return f"{len(table)} folds"
    _keep_predictions(run, planned, results)
    found = folds.mean_accuracy(table[ACCURACY].to_numpy(dtype=np.float64))
    run.metrics({f"{ACCURACY}_standard_error": found.standard_error})
    if not found.standard_error:
        return f"{len(table)} folds, test accuracy {found.value:.2%} in all of them, so there is no interval over folds"
    run.metrics({f"{ACCURACY}_over_folds_low": found.low, f"{ACCURACY}_over_folds_high": found.high})
    return (
        f"{len(table)} folds, test accuracy {found.value:.2%} (corrected standard error "
        f"{100 * found.standard_error:.2f} points, 95 % interval {found.low:.2%} to {found.high:.2%})"
    )


def _keep_predictions(run: Run, planned: Sequence[Planned], results: Sequence[Result]) -> None:
    """Logs the prediction of each image by the network that was trained without it."""
    evaluated = {each.fold: result for each, result in zip(planned, results, strict=True) if each.step == "evaluate"}
    try:
        tables = [evaluation.find(result.run_id)[0].predictions.assign(fold=fold) for fold, result in evaluated.items()]
    except ValueError as error:  # for example, the tracking store does not answer
        say(f"no predictions.csv of all folds: {error}")
        return
    run.table("predictions.csv", pd.concat(tables, ignore_index=True))
