"""Where a run keeps on this machine what must not be lost: states of its training, and what is not yet sent."""

import re
import shutil
from pathlib import Path

from platformdirs import user_state_path


def runs() -> Path:
    """The folder of all runs' folders; XDG_STATE_HOME moves it."""
    return user_state_path("classifier-pipeline") / "runs"


def folder(run_id: str) -> Path:
    """Where a run keeps its things; it need not be there yet. Raises ValueError for an id that leads elsewhere."""
    if not re.fullmatch(r"[\w-]+", run_id):
        raise ValueError(f"{run_id} is no run id")
    return runs() / run_id


def remove_if_empty(run_id: str) -> None:
    """Removes the folder of a run that keeps nothing any more."""
    path = folder(run_id)
    if path.is_dir() and not any(path.rglob("*.*")):
        shutil.rmtree(path, ignore_errors=True)
