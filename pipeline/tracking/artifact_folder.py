"""Detects that the folder of an experiment's artifacts was moved. A store records its path once and never checks it."""

import shlex
from pathlib import Path
from typing import Any

from mlflow.entities import Run as StoredRun
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from pipeline.progress import say
from pipeline.tracking import database


def warn_if_missing(client: Any, experiment_id: str, uri: str) -> None:
    """Prints a warning if the folder of an experiment's artifacts is missing although some runs have finished."""
    missing = _missing(client.get_experiment(experiment_id).artifact_location)
    if missing is None:
        return
    if client.search_runs([experiment_id], "attributes.status = 'FINISHED'", max_results=1):
        say(f"artifacts of earlier runs are missing, and new ones go to a new folder: {_advice(missing, uri)}")


def named(run: StoredRun) -> str:
    """`, in FOLDER` if the artifacts of a run are on this machine; else empty."""
    return f", in {local_file_uri_to_path(run.info.artifact_uri)}" if is_local_uri(run.info.artifact_uri) else ""


def why_missing(run: StoredRun, uri: str) -> str:
    """Why an artifact of a run is missing, and what to do; empty if the folder of the run's artifacts exists."""
    missing = _missing(run.info.artifact_uri)
    return "" if missing is None else _advice(missing.parent.parent, uri)


def _missing(uri: str) -> Path | None:
    """The folder at `uri` if it is missing; None if it exists or is not on this machine."""
    if not is_local_uri(uri):
        return None
    folder = Path(local_file_uri_to_path(uri))
    return None if folder.exists() else folder


def _advice(experiment: Path, uri: str) -> str:
    """Advice for a missing folder of an experiment's artifacts."""
    text = f"the store expects them in {experiment}, which does not exist"
    recorded, file = experiment.parent, database.file(uri)
    moved = recorded if file is None else file.parent / recorded.name
    if moved == recorded or not moved.is_dir():
        return f"{text}: restore that folder"
    if recorded.exists():  # a later run made it again
        return f"{text}: if the store was moved, type `cp -rn {_quoted(moved)}/. {_quoted(recorded)}`"
    link = f"mkdir -p {_quoted(recorded.parent)} && ln -s {_quoted(moved)} {_quoted(recorded)}"
    return f"{text}: if the store was moved, move it back, or type `{link}`"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
