"""Finds the run that a user names, and the parameters with which a run was started."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd
from mlflow.entities import Run as StoredRun
from pydantic import ValidationError

from pipeline.params import Declared
from pipeline.params.base import ID_START, RUN_ID_WORDS
from pipeline.params.recipe import RUN
from pipeline.progress import say
from pipeline.tracking import owners, store

Kind = TypeVar("Kind", bound=Declared)

ID_CHARACTERS = 32  # length of a run's id
MOST_EXPERIMENTS = 50_000  # as many as MLflow lists at once
# By step: the steps whose runs count as its runs. A probe is a training too.
COUNTED_AS = {"train": ("train", "probe")}
COUNTED_BY_ID = {"train": ("ensemble",)}  # further steps whose runs count if they are given by id
ENSEMBLE_TAG = "ensemble.run_id"  # tag of the run of several seeds: the run of their ensemble
# Tag of an experiment with a probe and a training: the run of the one that is better on validation.
BETTER_TAG = "better.run_id"
KINDS = {"main": "experiment", "train": "training"}  # what messages call a run of a step
ADVICE = {"main": "give the id of a run", "train": "train first"}  # what to do if a step has no run


def finished_run(asked: str, step: str, only: bool = True) -> str:
    """The id of a FINISHED run. `asked` is an id, or `latest`: this user's newest run of `step`.

    If the newest training is of an experiment that found its probe to be better, `latest` is this probe.
    For step train, an ensemble also counts if it is given by id, and the run of several seeds stands for their
    ensemble. only: whether a run given by id must be of `step`. Prints the owner if the run belongs to another user.
    Raises ValueError if there is no such run.
    """
    if asked == "latest":
        finished = [run for each in COUNTED_AS.get(step, (step,)) for run in store.finished_runs(each)]
        newest_first = sorted(finished, key=lambda run: -run.info.start_time)
        newest = newest_own(newest_first, "run_id", f"FINISHED {KINDS[step]}", ADVICE[step])
        return str(_better(newest, finished).info.run_id)
    run = store.stored_run(asked)
    if step == "train" and _is_series(run):
        run = _ensemble_of(run)
    counted = (*COUNTED_AS.get(step, (step,)), *COUNTED_BY_ID.get(step, ()))
    if only and (found := run.data.tags.get("step")) not in counted:
        raise ValueError(
            f"run_id={asked} is a run of {found or 'another program'}; give the id of a finished {KINDS[step]}"
        )
    if run.info.status != "FINISHED":
        raise ValueError(f"run_id={asked} is {run.info.status}, not FINISHED")
    say_owner(run)
    return str(run.info.run_id)


def _better(newest: StoredRun, finished: Sequence[StoredRun]) -> StoredRun:
    """The probe in `finished` that the experiment of `newest` found to be better; if there is none, `newest`."""
    by_id = {run.info.run_id: run for run in finished if run.data.tags["step"] == "probe"}
    try:
        experiment = store.stored_run(newest.data.tags[store.PARENT_TAG])
        better = by_id[experiment.data.tags[BETTER_TAG]]
    except (KeyError, ValueError):  # there is no experiment or no probe, or somebody deleted one of them
        return newest
    if better is newest or not owners.is_own(experiment) or not owners.is_own(better):
        return newest
    say(f"run {better.info.run_id}: the probe, because it is no worse on validation than the network trained after it")
    return better


def _is_series(run: StoredRun) -> bool:
    """Whether a run trained several seeds of one recipe."""
    step, num_seeds = run.data.tags.get("step"), run.data.params.get("num_seeds", "1")
    return step == "seeds" or (step == "main" and num_seeds != "1")


def _ensemble_of(series: StoredRun) -> StoredRun:
    run_id = series.info.run_id
    if series.info.status != "FINISHED":
        raise ValueError(
            f"run_id={run_id} is {series.info.status}, not FINISHED: its ensemble is made after the last seed"
        )
    if not (ensemble_id := series.data.tags.get(ENSEMBLE_TAG)):
        raise ValueError(f"run_id={run_id} is of an earlier version, without an ensemble; give the id of a training")
    return store.stored_run(ensemble_id)


def full_id(start: str, named: str) -> str:
    """The complete id of the only run whose id begins with `start`, which the user gave as parameter `named`.

    Raises ValueError if there is no such run or more than one, or if the store does not answer.
    """
    if not re.fullmatch(ID_START, start):
        raise ValueError(f"{named}={start}: should be {RUN_ID_WORDS}")
    if len(start) == ID_CHARACTERS:
        return start
    client = store.Client()
    with store.answering():
        experiments = [each.experiment_id for each in client.search_experiments(max_results=MOST_EXPERIMENTS)]
        found = client.search_runs(experiments, f"attributes.run_id LIKE '{start}%'", max_results=2)
    if len(found) > 1:
        raise ValueError(f"{named}={start}: several run ids begin with this; give more characters")
    if not found:
        raise ValueError(f"{named}={start}: no such run in {store.uri()}")
    return str(found[0].info.run_id)


def in_full(params: Kind) -> Kind:
    """`params` with complete run ids. Raises ValueError if the start of an id does not name exactly one run."""
    found: dict[str, Any] = {}
    if (asked := getattr(params, "run_id", "latest")) != "latest":
        found["run_id"] = full_id(asked, "run_id")
    if asked := getattr(params, "reference", ""):
        found["reference"] = full_id(asked, "reference")
    if asked := getattr(params, "runs", ()):
        found["runs"] = tuple(full_id(each, "runs") for each in asked)
    if (asked := getattr(params, "weights", "none")).startswith(RUN):
        found["weights"] = RUN + full_id(asked.removeprefix(RUN), "weights")
    return params.model_copy(update=found)


def newest_own(runs: Sequence[StoredRun], named: str, what: str, advice: str) -> StoredRun:
    """The first of `runs` that belongs to this user. If there is none, raises ValueError that names the first run."""
    if own := next((run for run in runs if owners.is_own(run)), None):
        return own
    if not runs:
        raise ValueError(f"{named}=latest: no {what} in this MLflow experiment; {advice}")
    other = runs[0]
    raise ValueError(
        f"{named}=latest: no {what} of your own in this MLflow experiment; the newest belongs to {owners.name(other)}: "
        f"give {named}={other.info.run_id} to use it"
    )


def say_owner(run: StoredRun) -> None:
    """Prints the owner of a run if it does not belong to this user."""
    if not owners.is_own(run):
        say(f"run {run.info.run_id} belongs to {owners.name(run)}")


def foreign_author(run_id: str, stored: Mapping[str, Any]) -> str:
    """Who wrote the stored parameters of a run; empty if it was this user."""
    run = store.stored_run(run_id)
    if owners.wrote_params(run, stored):
        return ""
    return owners.name(run) if not owners.is_own(run) else "somebody who changed its params.json"


def params(run_id: str, kind: type[Kind]) -> Kind:
    """The parameters in a run's params.json. Raises ValueError if it is missing or from another version."""
    try:
        return kind(**stored_params(run_id))
    except ValidationError:
        raise ValueError(f"run {run_id}: its params.json is from another version of this project") from None


def stored_params(run_id: str) -> dict[str, Any]:
    """The content of a run's params.json. Raises ValueError if it is missing."""
    with store.scratch() as folder:
        return store.read_json(run_id, "params.json", folder)


def metric_history(run_id: str, name: str) -> dict[int, float]:
    """The values of a run's metric by step. Raises ValueError if the store does not answer."""
    with store.answering():
        return {point.step: point.value for point in store.Client().get_metric_history(run_id, name)}


def epochs(run_id: str, names: Iterable[str]) -> pd.DataFrame:
    """One row per epoch of a training: `epoch`, and a column for each of the metrics `names` that was logged.

    Raises ValueError if the store does not answer.
    """
    logged = {name: pd.Series(history) for name in names if (history := metric_history(run_id, name))}
    return pd.DataFrame(logged).sort_index().rename_axis("epoch").reset_index()
