"""Reads a finished run from the store as plain values. Damaged or changed artifacts are refused."""

from collections.abc import Iterator

import pandas as pd
from mlflow.entities import Run as StoredRun

from pipeline.history import lookup
from pipeline.progress import say
from pipeline.report import artifacts
from pipeline.report.record import Record, StepRecord
from pipeline.text import visible
from pipeline.tracking import processes, store

# For each kind of run: the tags that hold the id of another run, and the kind of that run, by its step.
NAMED_RUNS: dict[str, dict[str, dict[str, str]]] = {
    "main": {f"{step}.run_id": {step: step} for step in ("lr_range", "probe", "sweep", "train", "evaluate", "explain")},
    "train": {"lr_range.run_id": {"lr_range": "lr_range"}},
    "explain": {"train.run_id": {"train": "train", "probe": "probe"}},
}
NAMED_RUNS["robustness"] = NAMED_RUNS["explain"]
NAMED_RUNS["evaluate_beside"] = NAMED_RUNS["explain"]
NAMED_RUNS["evaluate"] = {**NAMED_RUNS["explain"], "beside.run_id": {"evaluate": "evaluate_beside"}}
# For each kind of run: the steps whose runs hold its id in a tag.
NAMED_BY = dict.fromkeys(("train", "probe"), ("evaluate", "explain", "robustness"))
KINDS = (*artifacts.TABLES, "evaluate_beside")


def read(run_id: str) -> Record:
    """The record of a run and of the steps that belong to it: an experiment's steps, or the steps of one training.

    Raises ValueError if there is no such run, if a report cannot show its step, or if its artifacts are damaged.
    """
    run = store.stored_run(run_id)
    kind = run.data.tags.get("step", "")
    if kind not in (*artifacts.PARENTS, *artifacts.TABLES):
        kinds = ", ".join((*artifacts.PARENTS, *artifacts.TABLES))
        raise ValueError(f"run_id={run_id} is a run of {kind or 'another program'}; a report needs a run of {kinds}")
    with store.answering():
        found = _related(run, kind, {})
        steps = {name: _step(found[name], name) for name in KINDS if name in found}
        return Record(steps.get(kind) or _step(run, kind), steps)


def _related(run: StoredRun, kind: str, found: dict[str, StoredRun]) -> dict[str, StoredRun]:
    """`found`, with the run, the runs that it names and the newest runs that name it, by step."""
    if kind not in artifacts.PARENTS:
        found = {**found, kind: run}
    elif "train.run_id" not in run.data.tags:
        trainings = [each for each in store.children(run.info.run_id, "train") if each.info.status == "FINISHED"]
        if trainings:
            found = _related(trainings[-1], "train", found)  # the first of several seeds or folds
    named = {name: other for name, other in _named_runs(run, kind) if name not in found}
    found = {**found, **named}
    for name, other in named.items():
        found = _related(other, name, found)
    for name in NAMED_BY.get(kind, ()):
        if name not in found and (naming := store.finished_runs(name, {f"{kind}.run_id": run.info.run_id}, beside=run)):
            found = {**found, name: naming[0]}
    return found


def _named_runs(run: StoredRun, kind: str) -> Iterator[tuple[str, StoredRun]]:
    for tag, kinds in NAMED_RUNS.get(kind, {}).items():
        other = store.find(run.data.tags.get(tag, ""))
        if other is not None and (name := kinds.get(other.data.tags.get("step", ""))):
            yield name, other


def _step(run: StoredRun, kind: str) -> StepRecord:
    run_id = str(run.info.run_id)
    tables, pictures = {}, {}
    with store.scratch() as folder:
        params = lookup.stored_params(run_id)
        folders = {path.rpartition("/")[0] for path in artifacts.paths(kind)}
        stored = set().union(*(store.artifacts(run_id, each) for each in folders))
        for path, most_bytes in artifacts.paths(kind).items():
            if path not in stored:
                continue
            file = store.artifact(run_id, path, folder)
            if file.stat().st_size > most_bytes:
                say(f"{path} of run {run_id} is left out of the report: it is larger than {most_bytes:,} bytes")
                continue
            content = file.read_bytes()
            try:
                if path.endswith(".csv"):
                    tables[path] = artifacts.table(kind, path, content.decode("utf-8"))
                else:
                    pictures[path] = artifacts.picture(content)
            except ValueError as error:
                reason = store.first_line(error)
                raise ValueError(f"run {run_id}: {path} is damaged or was changed ({reason})") from None
    return StepRecord(
        kind=kind,
        run_id=run_id,
        name=visible(run.info.run_name or kind),
        seconds=_seconds(run),
        params={visible(name): value for name, value in params.items()},
        metrics={visible(name): float(value) for name, value in run.data.metrics.items()},
        tags={name: visible(value) for name, value in run.data.tags.items()},
        tables=tables,
        pictures=pictures,
        epochs=_epochs(run) if kind == "train" else pd.DataFrame(),
    )


def _seconds(run: StoredRun) -> float | None:
    # A resumed run has the start time of its first part, and the length of the pause is not known.
    if not run.info.end_time or processes.REOPENED in run.data.tags:
        return None
    return float((run.info.end_time - run.info.start_time) / 1000)


def _epochs(run: StoredRun) -> pd.DataFrame:
    """One row per epoch: `epoch`, and the metrics logged for it."""
    names = [name for name in artifacts.EPOCH_METRICS if name in run.data.metrics]
    return lookup.epochs(run.info.run_id, names) if names else pd.DataFrame()
