"""The newest two states of a run's training: on this machine's disk first, then among the run's artifacts."""

import logging
from pathlib import Path
from typing import Any

from pipeline.tracking import checkpoint, local, store

log = logging.getLogger(__name__)

SLOTS = ("state-a.safetensors", "state-b.safetensors")  # written in turn, so that one is whole whatever happens
ARTIFACTS = "states"  # the run's artifact folder
STEP_TAG = "mlflow.state.step"  # of the newest that was sent: updates it has behind it


def save(run_id: str, tree: Any, step: int) -> str:
    """Keeps `tree`, the state after `step` updates, in place of the older of two. Returns the slot's name."""
    kept = {name: step_of(slot(run_id, name)) for name in SLOTS}
    name = min(SLOTS, key=lambda name: (kept[name] != step, kept[name]))
    checkpoint.save_tree(slot(run_id, name), tree, {"step": step})
    return name


def newest(run_id: str) -> Any:
    """The newest state that can be read, of this disk or of the run's artifacts; None where there is none."""
    found = {slot(run_id, name): step_of(slot(run_id, name)) for name in SLOTS}
    sent = store.stored_run(run_id).data.tags.get(STEP_TAG, "")
    with store.scratch() as folder:
        is_asked = sent.isdecimal() and int(sent) > max(found.values())
        if is_asked:
            found |= _fetched(run_id, folder)
        while found:
            path = max(found, key=lambda path: found[path])
            try:
                if found.pop(path) >= 0:
                    return checkpoint.load_tree(path)[0]
            except ValueError as error:
                log.warning("a kept state is damaged (%s): going on from another", error)
                if sent and not is_asked:
                    found |= _fetched(run_id, folder)
                    is_asked = True
    return None


def is_there(run_id: str, tags: dict[str, str]) -> bool:
    """Whether a run with these tags has a state to go on from."""
    return bool(tags.get(STEP_TAG)) or any(step_of(slot(run_id, name)) >= 0 for name in SLOTS)


def remove(run_id: str) -> None:
    """Removes a run's states from this disk."""
    for name in SLOTS:
        slot(run_id, name).unlink(missing_ok=True)


def slot(run_id: str, name: str) -> Path:
    """The file of a slot. Raises ValueError for a name that is none."""
    if name not in SLOTS:
        raise ValueError(f"{name} is no state of a training")
    return local.folder(run_id) / name


def step_of(path: Path) -> int:
    """Updates behind the state in a file; -1 where there is none to be read."""
    try:
        return int(checkpoint.describe(path)["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return -1


def _fetched(run_id: str, folder: Path) -> dict[Path, int]:
    fetched = {}
    for name in SLOTS:
        try:
            path = store.artifact(run_id, f"{ARTIFACTS}/{name}", folder)
        except ValueError:
            continue
        fetched[path] = step_of(path)
    return fetched
