"""The folder of an experiment's artifacts on this machine: a store records it once, and does not see that it moved."""

import shlex
from pathlib import Path
from typing import Any

from mlflow.entities import Run as StoredRun
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from pipeline.progress import say
from pipeline.tracking import database


def say_if_lost(client: Any, experiment_id: str, uri: str) -> None:
    """Says so where the folder of an experiment's artifacts has gone, though runs of it have ended well."""
    missing = _missing(client.get_experiment(experiment_id).artifact_location)
    if missing is None:
        return
    if client.search_runs([experiment_id], "attributes.status = 'FINISHED'", max_results=1):
        say(f"artifacts of earlier runs are not found, and new ones go to a new folder: {_advice(missing, uri)}")


def named(run: StoredRun) -> str:
    """`, in FOLDER` where the artifacts of a run lie on this machine; empty where they lie elsewhere."""
    return f", in {local_file_uri_to_path(run.info.artifact_uri)}" if is_local_uri(run.info.artifact_uri) else ""


def why_lost(run: StoredRun, uri: str) -> str:
    """Why an artifact of a run is not found, and what to do; empty where the folder of the run's artifacts is there."""
    missing = _missing(run.info.artifact_uri)
    return "" if missing is None else _advice(missing.parent.parent, uri)


def _missing(uri: str) -> Path | None:
    """The folder at `uri`, which is not there; None where it is, or is no folder of this machine."""
    if not is_local_uri(uri):
        return None
    folder = Path(local_file_uri_to_path(uri))
    return None if folder.exists() else folder


def _advice(experiment: Path, uri: str) -> str:
    """What to do about the folder of an experiment's artifacts that is not there."""
    text = f"the store records them in {experiment}, which is not there"
    recorded, file = experiment.parent, database.file(uri)
    moved = recorded if file is None else file.parent / recorded.name
    if moved == recorded or not moved.is_dir():
        return f"{text}: bring that folder back"
    if recorded.exists():  # made anew since
        return f"{text}: if the store was moved, type `cp -rn {_quoted(moved)}/. {_quoted(recorded)}`"
    link = f"mkdir -p {_quoted(recorded.parent)} && ln -s {_quoted(moved)} {_quoted(recorded)}"
    return f"{text}: if the store was moved, move it back, or type `{link}`"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
