"""What a study has found, as tables and as Optuna's own figures."""

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
RATES_PER_DECADE = 2  # columns of the table of patch size and rate


def trials(study: optuna.Study) -> pd.DataFrame:
    """A row per trial: number, state, values, parameters, duration (s), costs, run."""
    table = study.trials_dataframe(attrs=("number", "state", "value", "params", "duration", "user_attrs"))
    if table.empty:
        return table
    table = table.drop(columns=["user_attrs_process"], errors="ignore")
    table["duration"] = pd.to_timedelta(table["duration"]).dt.total_seconds()  # of none that has ended, plain None
    return table.rename(columns=lambda name: name.removeprefix("params_").removeprefix("user_attrs_"))


def tables(study: optuna.Study) -> dict[str, pd.DataFrame]:
    """What the figures show, and more, by file name; those that the study has enough trials for."""
    found = {
        "rank_correlation.csv": rank_correlation(study),
        "importances.csv": importances(study),
        "patch_size_max_lr.csv": rate_table(study).reset_index(),
    }
    return {name: table for name, table in found.items() if not table.empty}


def rank_correlation(study: optuna.Study) -> pd.DataFrame:
    """How well an epoch foretells the end: Spearman's correlation of its accuracy with the last, over COMPLETE trials.

    Columns epoch, correlation, trials; no rows for fewer than three trials.
    """
    curves = pd.DataFrame([trial.intermediate_values for trial in completed(study)])
    if len(curves) < 3 or curves.empty:
        return pd.DataFrame(columns=["epoch", "correlation", "trials"])
    curves = curves.sort_index(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)  # all alike: no correlation, and none is given
        correlations = curves.corrwith(curves.iloc[:, -1], method="spearman")
    return pd.DataFrame({"epoch": correlations.index, "correlation": correlations.to_numpy(), "trials": len(curves)})


def importances(study: optuna.Study) -> pd.DataFrame:
    """How much of the first objective each parameter decides, by PED-ANOVA: parameter, importance; they sum to 1.

    No rows for fewer than three COMPLETE trials, or where all have reached the same.
    """
    done = completed(study)
    if len(done) < 3 or not _differ(done, 0):
        return pd.DataFrame(columns=["parameter", "importance"])
    target = _nth(0, _low_is_good(study, 0)) if len(study.directions) > 1 else None
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # of which we know
        found = optuna.importance.get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), target=target)
    return pd.DataFrame({"parameter": list(found), "importance": list(found.values())})


def rate_table(study: optuna.Study) -> pd.DataFrame:
    """The best first objective by patch size (rows) and peak rate (columns, half decades from the rate they name).

    NaN where no trial is complete; empty where the study does not vary both.
    """
    both = [trial for trial in completed(study) if {"patch_size", "max_lr"} <= trial.params.keys()]
    if not both:
        return pd.DataFrame()
    rows = pd.DataFrame({name: [trial.params[name] for trial in both] for name in ("patch_size", "max_lr")})
    half_decade = np.floor(np.log10(rows["max_lr"]) * RATES_PER_DECADE + 1e-9)
    rows["rate"] = 10 ** (half_decade / RATES_PER_DECADE)
    rows["value"] = [trial.values[0] for trial in both]
    # `completed` has the best first.
    return rows.groupby(["patch_size", "rate"])["value"].first().unstack("rate")


def figures(study: optuna.Study, objectives: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """File names and Optuna's figures, of those that the study has enough trials for."""
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
        yield "intermediate_values.png", _figure(draw.plot_intermediate_values, study)


def _figure(function: Callable[..., Any], study: optuna.Study, **options: Any) -> Any:
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attempting to set identical")  # of a parameter with one value only
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # of which we know
        drawn = function(study, **options)
    axes = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    figure = axes.figure
    many = drawn.shape[0] if isinstance(drawn, np.ndarray) else 1
    figure.set_size_inches(max(WIDTH, 3.0 * many), max(HEIGHT, 2.6 * (many if getattr(drawn, "ndim", 0) == 2 else 1)))
    return figure


def _nth(index: int, sign: int = 1) -> Callable[[Any], float]:
    return lambda trial: sign * float(trial.values[index])


def _low_is_good(study: optuna.Study, index: int) -> int:
    """The sign that makes low values of an objective the good ones, as PED-ANOVA takes them where it has a target."""
    return -1 if study.directions[index] == StudyDirection.MAXIMIZE else 1


def _differ(trials: list[Any], index: int) -> bool:
    return len({trial.values[index] for trial in trials}) > 1
