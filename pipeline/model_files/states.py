"""The newest two states of a run's training on this machine's disk."""

from pathlib import Path
from typing import Any

from pipeline import disk
from pipeline.model_files import checkpoint

SLOTS = ("state-a.safetensors", "state-b.safetensors")  # written in turn, so that one is whole whatever happens
ARTIFACTS = "states"  # the run's artifact folder
STEP_TAG = "mlflow.state.step"  # of the newest that was sent: updates it has behind it


def save(run_id: str, tree: Any, step: int) -> str:
    """Keeps `tree`, the state after `step` updates, in place of the older of two. Returns the slot's name."""
    disk.remove_unfinished(disk.run_folder(run_id))
    kept = {name: step_of(slot(run_id, name)) for name in SLOTS}
    name = min(SLOTS, key=lambda name: (kept[name] != step, kept[name]))
    checkpoint.save_tree(slot(run_id, name), tree, {"step": step})
    return name


def remove(run_id: str) -> None:
    """Removes a run's states from this disk, whole or not."""
    disk.remove_unfinished(disk.run_folder(run_id))
    for name in SLOTS:
        slot(run_id, name).unlink(missing_ok=True)


def slot(run_id: str, name: str) -> Path:
    """The file of a slot. Raises ValueError for a name that is none."""
    if name not in SLOTS:
        raise ValueError(f"{name} is no state of a training")
    return disk.run_folder(run_id) / name


def step_of(path: Path) -> int:
    """Updates behind the state in a file; -1 where there is none to be read."""
    try:
        return int(checkpoint.describe(path)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return -1
