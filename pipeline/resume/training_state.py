"""The state of a training: saved while it runs, so that it can continue after whatever ends the process."""

import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from pipeline.model_files import checkpoint, states
from pipeline.resume import interrupts
from pipeline.tracking import store
from pipeline.tracking.run import Run
from pipeline.tracking.system_metrics import GROUP, SystemMetrics
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.training import Diverged, Training

log = logging.getLogger(__name__)

EPOCH_SECONDS = 30  # between the states after two epochs: to keep one may take as long as an epoch
STATE_SECONDS = f"{GROUP}state_seconds"  # how long the training waited for its states to be kept, since the last epoch


def restore(training: Training, run_id: str) -> None:
    """Loads the run's newest state into `training`. Raises ValueError if it has none."""
    tree = newest(run_id)
    if tree is None:
        raise ValueError(f"resume={run_id}: the run has kept no state to go on from")
    training.load_state_dict(tree)


def checkpointed(
    training: Training, run: Run, minutes: float, look: Callable[[int], None] | None = None
) -> Generator[StepEnd | EpochEnd]:
    """The events of `training`; logs each epoch once in `run`, also those from before an interruption.

    Saves the state after the first epoch and the last, after others once 30 s have passed since the state before, every
    `minutes` within a long one, and when an interrupt comes, which is raised between two updates. What was logged after
    the newest state is trained again by a training that goes on from it, to the same numbers, and not logged again.
    `look` is called with each epoch that ends, before its state is saved, so that a training that continues has looked
    at every epoch behind it.
    """
    is_begun = training.log.num_steps > 0  # else nothing is logged, and a store that is away need not be asked
    logged = {point.step for point in store.Client().get_metric_history(run.id, "lr")} if is_begun else set()
    for epoch in training.log.epochs:
        if epoch.epoch not in logged:
            run.record(epoch)
    kept_at, state_seconds = time.monotonic(), 0.0
    metrics = SystemMetrics()
    with interrupts.held():
        try:
            for event in training.events():
                metrics.look()
                if look is not None and isinstance(event, EpochEnd):
                    look(event.epoch)
                if _is_due(event, training, time.monotonic() - kept_at, minutes) or interrupts.waiting():
                    started = time.monotonic()
                    run.state(training.state_dict(), training.log.num_steps)
                    kept_at = time.monotonic()
                    state_seconds += kept_at - started
                if isinstance(event, EpochEnd):
                    if event.epoch not in logged:
                        run.record(event, {**metrics.averages(), STATE_SECONDS: state_seconds})
                    state_seconds = 0.0
                yield event
                interrupts.pause()
        except Diverged:
            run.no_states()  # they lead here again
            raise


def _is_due(event: StepEnd | EpochEnd, training: Training, seconds: float, minutes: float) -> bool:
    """Whether a state is to be kept after `event`, so many seconds after the one before."""
    if isinstance(event, StepEnd):
        return seconds > 60 * minutes
    return event.epoch in (1, training.epochs) or seconds > min(60 * minutes, EPOCH_SECONDS)


def newest(run_id: str) -> Any:
    """The newest state that can be read, of this disk or of the run's artifacts; None where there is none."""
    found = {states.slot(run_id, name): states.step_of(states.slot(run_id, name)) for name in states.SLOTS}
    sent = store.stored_run(run_id).data.tags.get(states.STEP_TAG, "")
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
    slots = (states.slot(run_id, name) for name in states.SLOTS)
    return bool(tags.get(states.STEP_TAG)) or any(states.step_of(slot) >= 0 for slot in slots)


def _fetched(run_id: str, folder: Path) -> dict[Path, int]:
    fetched = {}
    for name in states.SLOTS:
        try:
            path = store.artifact(run_id, f"{states.ARTIFACTS}/{name}", folder)
        except ValueError:
            continue
        fetched[path] = states.step_of(path)
    return fetched
