"""Which run a person means, and the parameters that a run was started with."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from pipeline.params import Declared
from pipeline.params.base import ID_START, OF_A_RUN
from pipeline.params.recipe import RUN
from pipeline.progress import say
from pipeline.tracking import owners, store

Kind = TypeVar("Kind", bound=Declared)

ID_CHARACTERS = 32  # of a run's id
MOST_EXPERIMENTS = 50_000  # that MLflow lists at once
OF_STEP = {"train": ("train", "probe")}  # steps whose runs are trainings: a probe is one, fitted another way
NAMES = {"main": "experiment", "train": "training"}
FIRST = {"main": "give the id of a run", "train": "train first"}


def finished_run(asked: str, step: str, only: bool = True) -> str:
    """The id of the FINISHED run that `asked` names: an id, or `latest`, the newest of `step` that is this user's own.

    only: whether an id must be of that step. Says whose it is where it is another's. Raises ValueError if there is no
    such run.
    """
    if asked == "latest":
        finished = [run for each in OF_STEP.get(step, (step,)) for run in store.finished_runs(each)]
        newest_first = sorted(finished, key=lambda run: -run.info.start_time)
        return str(newest_own(newest_first, "run_id", f"FINISHED {NAMES[step]}", FIRST[step]).info.run_id)
    run = store.stored_run(asked)
    if only and (found := run.data.tags.get("step")) not in OF_STEP.get(step, (step,)):
        raise ValueError(f"run_id={asked} is no {NAMES[step]} but {found or 'a run of something else'}")
    if run.info.status != "FINISHED":
        raise ValueError(f"run_id={asked} is not FINISHED but {run.info.status}")
    say_owner(run)
    return asked


def full_id(start: str, named: str) -> str:
    """The id of the one run whose id begins with `start`, which parameter `named` gave.

    Raises ValueError where there is none, or more than one, or the store is away.
    """
    if not re.fullmatch(ID_START, start):
        raise ValueError(f"{named}={start}: should be {OF_A_RUN}")
    if len(start) == ID_CHARACTERS:
        return start
    client = store.Client()
    try:
        experiments = [each.experiment_id for each in client.search_experiments(max_results=MOST_EXPERIMENTS)]
        found = client.search_runs(experiments, f"attributes.run_id LIKE '{start}%'", max_results=2)
    except MlflowException as error:
        raise store.unusable(error) from None
    if len(found) > 1:
        raise ValueError(f"{named}={start}: the ids of several runs begin so; give more of it")
    if not found:
        raise ValueError(f"{named}={start}: no such run in {store.uri()}")
    return str(found[0].info.run_id)


def in_full(params: Kind) -> Kind:
    """`params` with the whole id of each run that they name. Raises ValueError where what they name is not one run."""
    found: dict[str, Any] = {}
    if (asked := getattr(params, "run_id", "latest")) != "latest":
        found["run_id"] = full_id(asked, "run_id")
    if asked := getattr(params, "runs", ()):
        found["runs"] = tuple(full_id(each, "runs") for each in asked)
    if (asked := getattr(params, "weights", "none")).startswith(RUN):
        found["weights"] = RUN + full_id(asked.removeprefix(RUN), "weights")
    return params.model_copy(update=found)


def newest_own(runs: Sequence[StoredRun], named: str, what: str, advice: str) -> StoredRun:
    """The first of `runs` that is this user's own. Raises ValueError where none is, naming the first of another's."""
    if own := next((run for run in runs if owners.is_own(run)), None):
        return own
    if not runs:
        raise ValueError(f"{named}=latest: no {what} in this MLflow experiment; {advice}")
    other = runs[0]
    raise ValueError(
        f"{named}=latest: no {what} of your own in this MLflow experiment; the newest is of {owners.name(other)}: "
        f"{named}={other.info.run_id} takes it"
    )


def say_owner(run: StoredRun) -> None:
    """Says whose a run is that is not this user's own."""
    if not owners.is_own(run):
        say(f"run {run.info.run_id} is of {owners.name(run)}")


def untrusted(run_id: str, stored: Mapping[str, Any]) -> str:
    """Whose parameters those stored in a run are, where this user did not write them; else empty."""
    run = store.stored_run(run_id)
    if owners.wrote(run, stored):
        return ""
    return owners.name(run) if not owners.is_own(run) else "somebody who changed its params.json"


def params(run_id: str, kind: type[Kind]) -> Kind:
    """The parameters in a run's params.json. Raises ValueError if there are none, or of another version."""
    try:
        return kind(**stored_params(run_id))
    except ValidationError:
        raise ValueError(f"run {run_id}: its params.json is of another version of this project") from None


def stored_params(run_id: str) -> dict[str, Any]:
    """A run's params.json as it stands. Raises ValueError if there is none."""
    with store.scratch() as folder:
        return store.read_json(run_id, "params.json", folder)
