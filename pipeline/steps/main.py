"""A whole experiment under one parent run. Each step is a child run and gets the results of the steps before."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.params import EvaluateParams, MainParams
from pipeline.params.main import AT_A_GIVEN_RATE
from pipeline.progress import conclude, say
from pipeline.steps import (
    doctor,
    ensemble,
    evaluate,
    explain,
    export,
    folds,
    lr_range,
    plan,
    probe,
    report,
    seeds,
    sweep,
    train,
)
from pipeline.steps.plan import Planned, Steps
from pipeline.steps.step import Result
from pipeline.sweep import study
from pipeline.text import unmarked, without_passwords
from pipeline.tracking import lifecycle, views
from pipeline.tracking.run import Run

RUN: Steps = {
    "doctor": doctor.run,
    "lr_range": lr_range.run,
    "probe": probe.run,
    "sweep": sweep.run,
    "train": train.run,
    "evaluate": evaluate.run,
    "explain": explain.run,
    "export": export.run,
}


SERIES = ("Seeds: ", "Folds: ", "Ensemble: ")  # starts of the lines of several seeds or folds
# The result of an experiment is the first of these metrics that it has.
ACCURACIES = {"test/accuracy": "test", "weights/best_valid_accuracy": "valid", "sweep/best_valid_accuracy": "valid"}

# The metrics of an ensemble's evaluation that the experiment logs too.
OF_ENSEMBLE = {f"test/{name}" for name in ("accuracy", "accuracy_low", "accuracy_high", "loss", "ece")}
OF_ENSEMBLE |= {f"ensemble/gain{end}" for end in ("", "_low", "_high")}


def run(params: MainParams) -> Result:
    """Runs the steps in order, or continues the experiment that `resume` names at the step that was interrupted."""
    named = Path(params.experiment).stem
    title = named if named not in ("none", "folder") else f"{params.set_name} {params.model}"
    if params.max_lr != "auto" and params.steps == AT_A_GIVEN_RATE:
        say(f"max_lr={params.max_lr} is given, so no range test runs; to run one anyway, begin steps with lr_range")
    planned = plan.repeated(params, params.steps)
    done = plan.finished(params.resume)
    with lifecycle.start("main", title, reopen=params.resume) as run:
        if not params.resume:
            run.params(_logged(params))
            run.tags({"dataset": params.dataset, "model": params.model})
        results = plan.follow(run, planned, params, RUN, done)
        summary = _summary(run, planned, results)
        if params.num_seeds > 1:
            summary = f"{summary}\n{_ensemble(run, params, planned, results)}"
        run.describe(_name(title, results), _description(run, planned, results, summary))
        report_line = report.add(run)
    of_series = [line for line in summary.splitlines() if line.startswith(SERIES)]
    where = lifecycle.where_to_look(run.id)
    conclude("\n".join(["", title, "", plan.table_of(planned, results), "", *of_series, report_line, where]))
    return Result(run.id, summary, {})


def _summary(run: Run, planned: Sequence[Planned], results: Sequence[Result]) -> str:
    """One line per step with its result. Steps that ran for every seed or fold share one line, which is logged too."""
    times = Counter(each.step for each in planned)
    lines = [result.summary for each, result in zip(planned, results, strict=True) if times[each.step] == 1]
    if len({each.fold for each in planned}) > 1:
        return "\n".join([*lines, f"Folds: {folds.report(run, planned, results)}"])
    series = [(e.seed, result.metrics) for e, result in zip(planned, results, strict=True) if times[e.step] > 1]
    return "\n".join([*lines, f"Seeds: {seeds.report(run, series)}"] if series else lines)


def _ensemble(run: Run, params: MainParams, planned: Sequence[Planned], results: Sequence[Result]) -> str:
    """Joins the trained networks into one model and, if the experiment evaluates, evaluates it. Returns a line."""
    say("== ensemble")
    trainings = [result.run_id for each, result in zip(planned, results, strict=True) if each.step == "train"]
    made = ensemble.run(params, trainings, run)
    if "evaluate" not in params.steps:
        return made.summary
    # It is not registered here, because it takes several times as long to answer. A command of its own can register it.
    own = {"run_id": made.run_id, "checkpoint": "best", "register_as": ""}
    found = evaluate.run(params.to(EvaluateParams, **own), run).metrics
    run.metrics({name.replace("test/", "ensemble/"): value for name, value in found.items() if name in OF_ENSEMBLE})
    accuracy, low, high = (found[f"test/accuracy{end}"] for end in ("", "_low", "_high"))
    return (
        f"Ensemble: {len(trainings)} networks together, test accuracy {accuracy:.2%} ({low:.2%} to {high:.2%}), one "
        f"network {found['members/accuracy']:.2%} on average; {len(trainings)} times the cost"
    )


def _name(title: str, results: Sequence[Result]) -> str:
    """The title with the experiment's accuracy, on the test split if possible. With several seeds, the mean."""
    for metric, split in ACCURACIES.items():
        if reached := [result.metrics[metric] for result in results if metric in result.metrics]:
            return f"{title} {split} {fmean(reached):.2%}"
    return title


def _description(run: Run, planned: Sequence[Planned], results: Sequence[Result], summary: str) -> str:
    """The result of each step, with a link to its run, and the combined result of several seeds."""
    times = Counter(each.step for each in planned)
    lines = []
    for each, result in zip(planned, results, strict=True):
        what, _, found = result.summary.partition(": ")
        title = f"{what}, {each.turn}" if times[each.step] > 1 else what
        lines.append(f"- {run.link(title, result.run_id)}: {unmarked(found)}")
    lines += [f"- {unmarked(line)}" for line in summary.splitlines() if line.startswith(SERIES)]
    elsewhere = run.view("All results", views.RESULTS), run.view("curves of all trainings", views.CURVES)
    return "\n".join(lines) + "\n\n" + ", ".join(elsewhere)


def _logged(params: MainParams) -> dict[str, Any]:
    """The parameters that the experiment's run logs. `storage` is resolved, so that a resumed run finds its study."""
    kept = params.model_dump(exclude={"resume"})
    return kept | {"storage": without_passwords(study.storage_url(params.storage))} if "sweep" in params.steps else kept
