"""Finds the interrupted run that `resume` names."""

from contextlib import suppress
from typing import Any

from mlflow.entities import Run as StoredRun

from pipeline.history import lookup
from pipeline.params import Declared
from pipeline.params.base import trimmed
from pipeline.progress import say
from pipeline.resume import training_state
from pipeline.settings import differences
from pipeline.tracking import claims, owners, processes, recovery, store

SERIES = {"train": "seeds"}  # a step, and the step of a run that groups several runs of it; `resume` takes both


def find(step: str, asked: str) -> tuple[str, dict[str, Any]]:
    """(id, params.json) of the run to resume. `asked` is a run id, or `latest`: the user's newest resumable run.

    Raises ValueError if there is no such run, or if it cannot be resumed.
    """
    recovery.send()
    asked = trimmed(asked)
    if asked == "latest":
        found = [run for run in _candidates(step) if not _obstacle(run)]
        run = lookup.newest_own(found, "resume", f"interrupted {step} run that can be resumed", "start a new one")
        return str(run.info.run_id), lookup.stored_params(str(run.info.run_id))
    asked = lookup.full_id(asked, "resume")
    run = store.stored_run(asked, "resume")
    if (stored_step := run.data.tags.get("step")) not in (step, SERIES.get(step, step)):
        raise ValueError(f"resume={asked} is a run of {stored_step or 'another program'}, not of {step}")
    if obstacle := _obstacle(run):
        raise ValueError(f"resume={asked}: {obstacle}")
    lookup.say_owner(run)
    return asked, lookup.stored_params(str(run.info.run_id))


def with_same_params(step: str, params: Declared) -> str:
    """The id of the user's newest resumable run with these parameters; empty if there is none."""
    recovery.send()
    for run in _candidates(step):
        if owners.is_own(run) and not _obstacle(run):
            try:
                stored = lookup.stored_params(str(run.info.run_id))
            except ValueError as error:
                say(f"not continued: {error}")
                continue
            with suppress(ValueError):  # parameters of another version differ from these
                if not differences(stored, params):
                    return str(run.info.run_id)
    return ""


def _candidates(step: str) -> list[StoredRun]:
    """Runs of `step` or of its series that are not FINISHED and have no parent, newest first."""
    found = [run for each in {step, SERIES.get(step, step)} for run in store.unfinished_runs(each)]
    alone = [run for run in found if store.PARENT_TAG not in run.data.tags]
    return sorted(alone, key=lambda run: -run.info.start_time)


def _obstacle(run: StoredRun) -> str:
    """Why the run cannot be resumed; empty if it can."""
    tags = run.data.tags
    if run.info.lifecycle_stage != "active":
        return "the run is deleted"
    if run.info.status == "FINISHED":
        return "the run is FINISHED"
    if claims.is_under_way(run):
        return f"the run is still running ({processes.in_words(tags)})"
    if tags.get("step") == "train" and not training_state.has_state(run.info.run_id, tags):
        return "the run has saved no state to continue from"
    if "params.json" not in store.artifacts(run.info.run_id):
        return "the run ended before its parameters were logged"
    return ""
