"""The results of a study, as tables and as Optuna's own figures."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.visualization import matplotlib as draw
from scipy.stats import ConstantInputWarning

from pipeline.sweep.study import completed
from pipeline.sweep.workers import quiet

WIDTH, HEIGHT = 8.0, 5.0  # inches
MOST_NAMED = 20  # trials in a legend
RATES_PER_DECADE = 2  # columns of the table of patch size and rate


def trials(study: optuna.Study) -> pd.DataFrame:
    """One row per trial: number, state, values, parameters, duration (s), costs, run."""
    table = study.trials_dataframe(attrs=("number", "state", "value", "params", "duration", "user_attrs"))
    if table.empty:
        return table
    table = table.drop(columns=["user_attrs_process"], errors="ignore")
    table["duration"] = pd.to_timedelta(table["duration"]).dt.total_seconds()  # a column of None if no trial has ended
    return table.rename(columns=lambda name: name.removeprefix("params_").removeprefix("user_attrs_"))


def tables(study: optuna.Study) -> dict[str, pd.DataFrame]:
    """Tables by file name, if the study has enough trials for them."""
    found = {
        "rank_correlation.csv": rank_correlation(study),
        "importances.csv": importances(study),
        "patch_size_max_lr.csv": rate_table(study).reset_index(),
    }
    return {name: table for name, table in found.items() if not table.empty}


def rank_correlation(study: optuna.Study) -> pd.DataFrame:
    """How well each epoch predicts the result: Spearman's correlation between its objective and the last epoch's.

    Over COMPLETE trials. Columns epoch, correlation, trials; empty for fewer than three trials.
    """
    curves = pd.DataFrame([trial.intermediate_values for trial in completed(study)])
    if len(curves) < 3 or curves.empty:
        return pd.DataFrame(columns=["epoch", "correlation", "trials"])
    curves = curves.sort_index(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)  # if all values are equal, the correlation is NaN
        correlations = curves.corrwith(curves.iloc[:, -1], method="spearman")
    return pd.DataFrame({"epoch": correlations.index, "correlation": correlations.to_numpy(), "trials": len(curves)})


def importances(study: optuna.Study) -> pd.DataFrame:
    """How much each parameter decides the first objective, by PED-ANOVA: parameter, importance (they sum to 1).

    Empty for fewer than three COMPLETE trials, or if all have the same value.
    """
    done = completed(study)
    if len(done) < 3 or not _differ(done, 0):
        return pd.DataFrame(columns=["parameter", "importance"])
    target = _nth(0, _low_is_good(study, 0)) if len(study.directions) > 1 else None
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # `_low_is_good` handles this
        found = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=target)
    return pd.DataFrame({"parameter": list(found), "importance": list(found.values())})


def rate_table(study: optuna.Study) -> pd.DataFrame:
    """The best first objective by patch size (rows) and peak rate (columns, each half a decade from its name up).

    NaN if a cell has no COMPLETE trial; empty if the study does not vary both.
    """
    both = [trial for trial in completed(study) if {"patch_size", "max_lr"} <= trial.params.keys()]
    if not both:
        return pd.DataFrame()
    rows = pd.DataFrame({name: [trial.params[name] for trial in both] for name in ("patch_size", "max_lr")})
    half_decade = np.floor(np.log10(rows["max_lr"]) * RATES_PER_DECADE + 1e-9)
    rows["rate"] = 10 ** (half_decade / RATES_PER_DECADE)
    rows["value"] = [trial.values[0] for trial in both]
    # `completed` returns the best trial first.
    return rows.groupby(["patch_size", "rate"])["value"].first().unstack("rate")


def figures(study: optuna.Study, objectives: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """(file name, figure) for each of Optuna's figures that the study has enough trials for."""
    done = completed(study)
    varied = sorted({name for trial in done for name in trial.params})
    pruned_on = any(trial.intermediate_values for trial in study.get_trials(deepcopy=False))
    for index, objective in enumerate(objectives):
        aim: dict[str, Any] = {"target_name": objective}
        if len(objectives) > 1:
            aim["target"] = _nth(index)
        suffix = "" if len(objectives) == 1 else f"_{objective.replace('/', '_')}"
        yield f"history{suffix}.png", _figure(draw.plot_optimization_history, study, **aim)
        if _differ(done, index) and len(done) > 2:
            evaluator = PedAnovaImportanceEvaluator()
            sign = _low_is_good(study, index)
            low_is_good = {**aim, "target": _nth(index, sign)} if "target" in aim else aim
            figure = _figure(draw.plot_param_importances, study, evaluator=evaluator, **low_is_good)
            figure.axes[0].set_title(
                f"Hyperparameter importances by PED-ANOVA, of {len(done)} complete trials", loc="left"
            )
            yield f"importances{suffix}.png", figure
        if varied:
            yield f"slice{suffix}.png", _figure(draw.plot_slice, study, **aim)
            yield f"parallel_coordinates{suffix}.png", _figure(draw.plot_parallel_coordinate, study, **aim)
        if len(varied) > 1:
            yield f"contour{suffix}.png", _figure(draw.plot_contour, study, **aim)
    if len(objectives) > 1:
        yield "pareto_front.png", _figure(draw.plot_pareto_front, study, target_names=list(objectives))
    elif pruned_on:
        figure = _figure(draw.plot_intermediate_values, study)
        if (legend := figure.axes[0].get_legend()) and len(legend.get_texts()) > MOST_NAMED:
            legend.remove()  # it names each trial and would be higher than the figure
        yield "intermediate_values.png", figure


def _figure(function: Callable[..., Any], study: optuna.Study, **options: Any) -> Any:
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attempting to set identical")  # for a parameter with only one value
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # `_low_is_good` handles this
        drawn = function(study, **options)
    axes = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    figure = axes.figure
    many = drawn.shape[0] if isinstance(drawn, np.ndarray) else 1
    figure.set_size_inches(max(WIDTH, 3.0 * many), max(HEIGHT, 2.6 * (many if getattr(drawn, "ndim", 0) == 2 else 1)))
    return figure


def _nth(index: int, sign: int = 1) -> Callable[[Any], float]:
    return lambda trial: sign * float(trial.values[index])


def _low_is_good(study: optuna.Study, index: int) -> int:
    """The sign that makes low values of an objective good: PED-ANOVA assumes this if it gets a target."""
    return -1 if study.directions[index] == StudyDirection.MAXIMIZE else 1


def _differ(trials: list[Any], index: int) -> bool:
    return len({trial.values[index] for trial in trials}) > 1
