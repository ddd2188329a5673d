"""A whole experiment under one parent run: each step a child, each handed the one before."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.params import STEPS, MainParams, Params, SweepParams, TrainParams
from pipeline.progress import say
from pipeline.settings import message
from pipeline.steps import evaluate, explain, lr_range, sweep, train
from pipeline.sweep import study
from pipeline.tracking import runs, store, unfinished, views
from pipeline.tracking.run import Run
from pipeline.tracking.runs import Result

RUN: dict[str, Callable[..., Result]] = {
    "lr_range": lr_range.run,
    "sweep": sweep.run,
    "train": train.run,
    "evaluate": evaluate.run,
    "explain": explain.run,
}

RESULTS = "finished_steps.json"
RESULT_LIST = TypeAdapter(list[Result])

# The first that is there tells what an experiment has come to.
ACCURACIES = {"test/accuracy": "test", "weights/best_valid_accuracy": "valid", "sweep/best_valid_accuracy": "valid"}
OF_SWEEPS = SweepParams.model_fields.keys() - TrainParams.model_fields.keys()


def run(params: MainParams) -> Result:
    """Runs the steps in order, or goes on with the experiment that `resume` names, in the step it was in."""
    title = Path(params.experiment).stem if params.experiment != "none" else f"{params.dataset} {params.model}"
    done = _finished(params.resume) if params.resume else []
    with runs.start("main", title, reopen=params.resume) as run:
        if not params.resume:
            run.params(_shown(params))
            run.tags({"dataset": params.dataset, "model": params.model})
        results: list[Result] = []
        handed: dict[str, Any] = {}
        for position, step in enumerate(params.steps):
            if position < len(done):
                result = done[position]
                say(f"== {step}: not run again, run {result.run_id} has finished it")
            else:
                say(f"== {step}")
                going_on = _interrupted(params.resume, step) if params.resume and position == len(done) else ""
                result = RUN[step](_own(step, params, {**handed, "resume": going_on}), parent=run)
                run.tags({f"{step}.run_id": result.run_id})
                run.metrics(result.metrics)
                run.json(RESULTS, [asdict(each) for each in (*results, result)])
            results.append(result)
            handed |= result.handed
        summary = "\n".join(result.summary for result in results)
        run.describe(_name(title, results), _described(run, results))
    say(f"\n{title}\n{summary}\nTracked in {store.uri()}, run {run.id}. Look at it with: make ui")
    return Result(run.id, summary, {})


def _name(title: str, results: Sequence[Result]) -> str:
    """The title with the accuracy that the experiment has come to, on the test split where it was read."""
    reached = {name: value for result in results for name, value in result.metrics.items()}
    for metric, split in ACCURACIES.items():
        if metric in reached:
            return f"{title} {split} {reached[metric]:.2%}"
    return title


def _described(run: Run, results: Sequence[Result]) -> str:
    """What each step has come to, with a link to its run."""
    lines = []
    for result in results:
        step, _, told = result.summary.partition(": ")
        lines.append(f"- {run.link(step, result.run_id)}: {told}")
    elsewhere = run.view("All results", views.RESULTS), run.view("curves of all trainings", views.CURVES)
    return "\n".join(lines) + "\n\n" + ", ".join(elsewhere)


def _shown(params: MainParams) -> dict[str, Any]:
    """The parameters of the experiment's own run: a database's password stays where it was typed."""
    if "sweep" not in params.steps:
        return params.model_dump(exclude={"resume"} | OF_SWEEPS)
    storage = study.without_password(study.storage_url(params.storage))
    return {**params.model_dump(exclude={"resume"}), "storage": storage}


def _finished(run_id: str) -> list[Result]:
    """What the finished steps of an experiment's run have handed on, in order."""
    if not store.has_artifact(run_id, RESULTS):
        return []
    with store.scratch() as folder:
        try:
            return RESULT_LIST.validate_json(store.artifact(run_id, RESULTS, folder).read_bytes())
        except ValidationError:
            raise ValueError(f"resume={run_id}: its {RESULTS} is of another version of this project") from None


def _interrupted(run_id: str, step: str) -> str:
    """The run of `step`, below that of an experiment, that can go on; empty where there is none."""
    if step != "train":
        return ""  # the others are short, or keep themselves what they have, as studies do
    for child in store.children(run_id, step):
        with suppress(ValueError):
            return unfinished.find(step, child.info.run_id)[0]
    return ""


def _own(step: str, params: MainParams, handed: dict[str, Any]) -> Params:
    kind = STEPS[step]
    own = {name: getattr(params, name) for name in kind.model_fields}
    try:
        return kind(**own | {name: value for name, value in handed.items() if name in kind.model_fields})
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))} {message(each)}".strip() for each in error.errors())
        raise ValueError(f"{step} cannot take what it was handed ({'; '.join(problems)})") from None
