"""Which run a person means, and the parameters that a run was started with."""

from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.params import Declared
from pipeline.tracking import store

Kind = TypeVar("Kind", bound=Declared)

NAMES = {"main": "experiment", "train": "training"}
FIRST = {"main": "give the id of a run", "train": "train first"}


def finished_run(asked: str, step: str, only: bool = True) -> str:
    """The id of the FINISHED run that `asked` names: an id, or `latest`, the newest of `step`.

    only: whether an id must be of that step. Raises ValueError if there is no such run.
    """
    if asked == "latest":
        finished = store.finished_runs(step)
        if not finished:
            raise ValueError(f"run_id=latest: no FINISHED {NAMES[step]} in this MLflow experiment; {FIRST[step]}")
        return str(finished[0].info.run_id)
    run = store.stored_run(asked)
    if only and (found := run.data.tags.get("step")) != step:
        raise ValueError(f"run_id={asked} is no {NAMES[step]} but {found or 'a run of something else'}")
    if run.info.status != "FINISHED":
        raise ValueError(f"run_id={asked} is not FINISHED but {run.info.status}")
    return asked


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
