"""Runs that did not come to their end, and which of them a `resume` means."""

from contextlib import suppress
from typing import Any

from mlflow.entities import Run as StoredRun

from pipeline.history import lookup
from pipeline.params import Declared
from pipeline.params.base import trimmed
from pipeline.resume import training_state
from pipeline.settings import differences
from pipeline.tracking import claims, owners, processes, recovery, store

SERIES = {"train": "seeds"}  # what several runs of a step stand under, which goes on as the step does


def find(step: str, asked: str) -> tuple[str, dict[str, Any]]:
    """(id, params.json) of the run that `asked` names: a run id, or `latest`, the newest own that can go on.

    Raises ValueError when there is none, or it cannot go on.
    """
    recovery.send()
    asked = trimmed(asked)
    if asked == "latest":
        found = [run for run in _candidates(step) if not _obstacle(run)]
        run = lookup.newest_own(found, "resume", f"{step} that was interrupted and can go on", "start a new one")
        return str(run.info.run_id), lookup.stored_params(str(run.info.run_id))
    asked = lookup.full_id(asked, "resume")
    run = store.stored_run(asked, "resume")
    if (is_of := run.data.tags.get("step")) not in (step, SERIES.get(step, step)):
        raise ValueError(f"resume={asked} is no {step} but {is_of or 'a run of something else'}")
    if obstacle := _obstacle(run):
        raise ValueError(f"resume={asked}: {obstacle}")
    lookup.say_owner(run)
    return asked, lookup.stored_params(str(run.info.run_id))


def same(step: str, params: Declared) -> str:
    """The id of the newest own run of these parameters that can go on; empty where there is none."""
    recovery.send()
    for run in _candidates(step):
        if owners.is_own(run) and not _obstacle(run):
            stored = lookup.stored_params(str(run.info.run_id))
            with suppress(ValueError):  # of another version, and so others than these
                if not differences(stored, params):
                    return str(run.info.run_id)
    return ""


def _candidates(step: str) -> list[StoredRun]:
    """Runs of `step`, or of several of it, that did not end well and are part of no other, newest first."""
    found = [run for each in {step, SERIES.get(step, step)} for run in store.unfinished_runs(each)]
    return sorted(found, key=lambda run: -run.info.start_time)


def _obstacle(run: StoredRun) -> str:
    """Why the run cannot go on; empty where it can."""
    tags = run.data.tags
    if run.info.lifecycle_stage != "active":
        return "it is deleted"
    if run.info.status == "FINISHED":
        return "it is FINISHED"
    if claims.is_under_way(run):
        return f"it is still running ({processes.in_words(tags)})"
    if tags.get("step") == "train" and not training_state.is_there(run.info.run_id, tags):
        return "it has kept no state to go on from"
    if not store.has_artifact(run.info.run_id, "params.json"):
        return "it ended before its parameters were known"
    return ""
