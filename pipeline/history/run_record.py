"""What a finished run has left in the store, read back as plain values; what is not as it was written is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline.history import lookup
from pipeline.progress import say
from pipeline.report import artifacts
from pipeline.report.record import Record, StepRecord
from pipeline.text import visible
from pipeline.tracking import processes, store

# What a run names by its tags, by step and kind; and where there is no such tag, steps that name it by theirs.
NAMED: dict[str, dict[str, dict[str, str]]] = {
    "main": {f"{step}.run_id": {step: step} for step in ("lr_range", "probe", "sweep", "train", "evaluate", "explain")},
    "train": {"lr_range.run_id": {"lr_range": "lr_range"}},
    "explain": {"train.run_id": {"train": "train", "probe": "probe"}},
}
NAMED["evaluate_beside"] = NAMED["explain"]
NAMED["evaluate"] = {**NAMED["explain"], "beside.run_id": {"evaluate": "evaluate_beside"}}
NAMING = {"train": ("evaluate", "explain"), "probe": ("evaluate", "explain")}
KINDS = (*artifacts.TABLES, "evaluate_beside")


def read(run_id: str) -> Record:
    """What a run and the steps that belong to it have left: an experiment's steps, or those about one training.

    Raises ValueError where there is no such run, it is of something else, or what it left is damaged.
    """
    of = store.stored_run(run_id)
    kind = of.data.tags.get("step", "")
    if kind not in (*artifacts.PARENTS, *artifacts.TABLES):
        kinds = ", ".join((*artifacts.PARENTS, *artifacts.TABLES))
        raise ValueError(f"run_id={run_id} is {kind or 'a run of something else'}, and reports are of {kinds}")
    try:
        found = _belonging(of, kind, {})
        steps = {name: _step(found[name], name) for name in KINDS if name in found}
        return Record(steps.get(kind) or _step(of, kind), steps)
    except MlflowException as error:
        raise ValueError(f"tracking store {store.uri()}: {store.first_line(error)}") from None


def _belonging(run: StoredRun, kind: str, found: dict[str, StoredRun]) -> dict[str, StoredRun]:
    """`found`, and by kind the run, those it names and those that name it, each the newest."""
    if kind not in artifacts.PARENTS:
        found = {**found, kind: run}
    elif "train.run_id" not in run.data.tags:
        trainings = [each for each in store.children(run.info.run_id, "train") if each.info.status == "FINISHED"]
        if trainings:
            found = _belonging(trainings[-1], "train", found)  # of several seeds the first
    named = {name: other for name, other in _named(run, kind) if name not in found}
    found = {**found, **named}
    for name, other in named.items():
        found = _belonging(other, name, found)
    for name in NAMING.get(kind, ()):
        if name not in found and (naming := store.finished_runs(name, {f"{kind}.run_id": run.info.run_id}, beside=run)):
            found = {**found, name: naming[0]}
    return found


def _named(run: StoredRun, kind: str) -> Iterator[tuple[str, StoredRun]]:
    for tag, kinds in NAMED.get(kind, {}).items():
        run_id = run.data.tags.get(tag, "")
        if store.is_there(run_id) and (
            name := kinds.get((other := store.stored_run(run_id)).data.tags.get("step", ""))
        ):
            yield name, other


def _step(run: StoredRun, kind: str) -> StepRecord:
    run_id = str(run.info.run_id)
    tables, pictures = {}, {}
    with store.scratch() as folder:
        params = lookup.stored_params(run_id)
        there = _listed(run_id, {Path(path).parent.as_posix() for path in artifacts.paths(kind)})
        for path, most_bytes in artifacts.paths(kind).items():
            if path not in there:
                continue
            file = store.artifact(run_id, path, folder)
            if file.stat().st_size > most_bytes:
                say(f"{path} of run {run_id} is left out of the report, being larger than {most_bytes:,} bytes")
                continue
            content = file.read_bytes()
            try:
                if path.endswith(".csv"):
                    tables[path] = artifacts.table(kind, path, content.decode("utf-8"))
                else:
                    pictures[path] = artifacts.picture(content)
            except ValueError as error:
                raise ValueError(f"run {run_id}: {path} is not as it was written ({store.first_line(error)})") from None
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
    # Of a run that was gone on with, the start is that of the first part, and nothing tells of the pause.
    if not run.info.end_time or processes.REOPENED in run.data.tags:
        return None
    return float((run.info.end_time - run.info.start_time) / 1000)


def _listed(run_id: str, folders: set[str]) -> set[str]:
    client = store.Client()
    return {
        str(item.path)
        for folder in sorted(folders)
        for item in client.list_artifacts(run_id, None if folder == "." else folder)
    }


def _epochs(run: StoredRun) -> pd.DataFrame:
    """A row per epoch: `epoch`, and what was logged at it."""
    client = store.Client()
    points: dict[str, Any] = {
        name: {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
        for name in artifacts.EPOCH_METRICS
        if name in run.data.metrics
    }
    return pd.DataFrame(points).sort_index().rename_axis("epoch").reset_index() if points else pd.DataFrame()
