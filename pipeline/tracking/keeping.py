"""A training's events, passed on while its state is kept, so that whatever ends the process it can go on."""

import time
from collections.abc import Callable, Generator

from pipeline.tracking import interrupts, states, store
from pipeline.tracking.machine import Machine
from pipeline.tracking.run import Run
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.fitting import Fitting
from pipeline.training.loop import Diverged


def restore(training: Fitting, run_id: str) -> None:
    """Puts `training` where the run's newest state was. Raises ValueError where it has none."""
    tree = states.newest(run_id)
    if tree is None:
        raise ValueError(f"resume={run_id}: the run has kept no state to go on from")
    training.load_state_dict(tree)


def kept(
    training: Fitting, run: Run, minutes: float, look: Callable[[int], None] | None = None
) -> Generator[StepEnd | EpochEnd]:
    """Runs `training` and logs its epochs in `run`, each once, also those that were told before it was interrupted.

    Its state is kept after every epoch, every so many minutes within one, and when an interrupt comes, which is raised
    between two updates. `look` is called with each epoch that ends, before its state is kept, so that a training that
    goes on has looked at every epoch behind it.
    """
    is_begun = training.history.num_steps > 0  # else nothing is logged, and a store that is away need not be asked
    logged = {point.step for point in store.Client().get_metric_history(run.id, "lr")} if is_begun else set()
    for epoch in training.history.epochs:
        if epoch.epoch not in logged:
            run.record(epoch)
    kept_at = time.monotonic()
    machine = Machine()
    with interrupts.held():
        try:
            for event in training.events():
                machine.look()
                if look is not None and isinstance(event, EpochEnd):
                    look(event.epoch)
                is_due = time.monotonic() - kept_at > 60 * minutes
                if isinstance(event, EpochEnd) or is_due or interrupts.waiting():
                    # Before the epoch shows: what is in MLflow is never trained again.
                    run.state(training.state_dict(), training.history.num_steps)
                    kept_at = time.monotonic()
                if isinstance(event, EpochEnd) and event.epoch not in logged:
                    run.record(event, machine.averages())
                yield event
                interrupts.pause()
        except Diverged:
            run.no_states()  # they lead here again
            raise
