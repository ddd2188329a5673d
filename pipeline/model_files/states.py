"""The newest two states of a run's training on this machine's disk."""

from pathlib import Path
from typing import Any

from pipeline import disk
from pipeline.model_files import checkpoint

SLOTS = ("state-a.safetensors", "state-b.safetensors")  # written in turn, so that one is always complete
ARTIFACTS = "states"  # the run's artifact folder
STEP_TAG = "mlflow.state.step"  # tag: the number of updates of the newest state that was sent


def save(run_id: str, tree: Any, step: int) -> str:
    """Saves `tree`, the state after `step` updates, in place of the older of two states. Returns the slot's name."""
    disk.remove_unfinished(disk.run_folder(run_id))
    kept = {name: step_of(slot(run_id, name)) for name in SLOTS}
    name = min(SLOTS, key=lambda name: (kept[name] != step, kept[name]))
    checkpoint.save_tree(slot(run_id, name), tree, {"step": step})
    return name


def remove(run_id: str) -> None:
    """Removes a run's states from this disk, also incomplete ones."""
    disk.remove_unfinished(disk.run_folder(run_id))
    for name in SLOTS:
        slot(run_id, name).unlink(missing_ok=True)


def slot(run_id: str, name: str) -> Path:
    """The file of a slot. Raises ValueError for any other name."""
    if name not in SLOTS:
        raise ValueError(f"{name} is not the state of a training")
    return disk.run_folder(run_id) / name


def step_of(path: Path) -> int:
    """The number of updates before the state in a file; -1 if no state can be read."""
    try:
        return int(checkpoint.describe(path)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return -1
