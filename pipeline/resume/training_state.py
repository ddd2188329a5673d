"""Saves the state of a training while it runs, so that it can continue after the process has ended for any reason."""

import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from pipeline.history import lookup
from pipeline.model_files import checkpoint, states
from pipeline.resume import interrupts
from pipeline.tracking import store
from pipeline.tracking.run import Run
from pipeline.tracking.system_metrics import GROUP, SystemMetrics
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.training import Diverged, Training

log = logging.getLogger(__name__)

EPOCH_SECONDS = 30  # shortest time between two states at the ends of epochs; saving may take as long as an epoch
STATE_SECONDS = f"{GROUP}state_seconds"  # how long the training waited for saving states since the last epoch


def restore(training: Training, run_id: str) -> None:
    """Loads the run's newest state into `training`. Raises ValueError if there is none."""
    tree = newest(run_id)
    if tree is None:
        raise ValueError(f"resume={run_id}: the run has saved no state to continue from")
    training.load_state_dict(tree)


def checkpointed(
    training: Training, run: Run, minutes: float, after_epoch: Callable[[int], None] | None = None
) -> Generator[StepEnd | EpochEnd]:
    """The events of `training`. Logs each epoch once in `run`, including epochs from before an interruption.

    The state is saved after the first and the last epoch, after other epochs if the last state is older than 30 s,
    every `minutes` within a long epoch, and on an interrupt, which is raised between two updates. A thread writes it
    while the training continues; the events end when the last state is on this disk. A resumed training repeats the
    updates after the newest state, gets the same numbers, and does not log them again. `after_epoch` is called with the
    number of each finished epoch before its state is saved, so a resumed training never misses an epoch.
    """
    is_begun = training.log.num_steps > 0  # a new training has logged nothing, so it does not ask the store
    logged = lookup.metric_history(run.id, "lr") if is_begun else {}
    for epoch in training.log.epochs:
        if epoch.epoch not in logged:
            run.record(epoch)
    saved_at, state_seconds = time.monotonic(), 0.0
    metrics = SystemMetrics()
    with interrupts.held():
        try:
            for event in training.events():
                metrics.measure_if_due()
                run.finish_state(waits=False)
                if after_epoch is not None and isinstance(event, EpochEnd):
                    after_epoch(event.epoch)
                if _is_due(event, training, time.monotonic() - saved_at, minutes) or interrupts.waiting():
                    started = time.monotonic()
                    run.state(training.state_dict(), training.log.num_steps)
                    saved_at = time.monotonic()
                    state_seconds += saved_at - started
                if isinstance(event, EpochEnd):
                    if event.epoch not in logged:
                        run.record(event, {**metrics.averages(), STATE_SECONDS: state_seconds})
                    state_seconds = 0.0
                yield event
                interrupts.pause()
        except Diverged:
            run.no_states()  # continuing from them would diverge again
            raise
        finally:
            run.finish_state()


def _is_due(event: StepEnd | EpochEnd, training: Training, seconds: float, minutes: float) -> bool:
    """Whether to save a state after `event`, `seconds` after the last state."""
    if isinstance(event, StepEnd):
        return seconds > 60 * minutes
    return event.epoch in (1, training.epochs) or seconds > min(60 * minutes, EPOCH_SECONDS)


def newest(run_id: str) -> Any:
    """The newest readable state on this disk or among the run's artifacts; None if there is none."""
    found = {states.slot(run_id, name): states.step_of(states.slot(run_id, name)) for name in states.SLOTS}
    sent = store.stored_run(run_id).data.tags.get(states.STEP_TAG, "")
    with store.scratch() as folder:
        is_fetched = sent.isdecimal() and int(sent) > max(found.values())
        if is_fetched:
            found |= _fetched(run_id, folder)
        while found:
            path = max(found, key=lambda path: found[path])
            try:
                if found.pop(path) >= 0:
                    return checkpoint.load_tree(path)[0]
            except ValueError as error:
                log.warning("a saved state is damaged (%s): continuing from another one", error)
                if sent and not is_fetched:
                    found |= _fetched(run_id, folder)
                    is_fetched = True
    return None


def has_state(run_id: str, tags: dict[str, str]) -> bool:
    """Whether a run with these tags has a state to continue from."""
    slots = (states.slot(run_id, name) for name in states.SLOTS)
    return bool(tags.get(states.STEP_TAG)) or any(states.step_of(slot) >= 0 for slot in slots)


def _fetched(run_id: str, folder: Path) -> dict[Path, int]:
    """The number of updates of each state among the run's artifacts, by its path in `folder`; missing ones left out."""
    fetched = {}
    for name in states.SLOTS:
        try:
            path = store.artifact(run_id, f"{states.ARTIFACTS}/{name}", folder)
        except ValueError:
            continue
        fetched[path] = states.step_of(path)
    return fetched
