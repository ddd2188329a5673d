"""Shares the trials of a study among its workers: counts them, finds surplus ones, and takes over abandoned ones."""

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from pipeline.params import SweepParams
from pipeline.sweep.space import Space
from pipeline.tracking import processes, recovery, store

GOES_ON_WITH = "goes_on_with"  # attribute: the run of an interrupted trial that this trial continues
MAX_RETRIES = 2  # of one trial whose workers die
# A trial names its process once its sampler has suggested values. If it has not done so after this time, it is dead.
NAMELESS = timedelta(minutes=5)


@dataclass(frozen=True)
class Count:
    """The numbers of finished trials and of trials under way."""

    finished: int
    running: int


def total_trials(params: SweepParams, space: Space) -> int:
    """The number of trials of the whole study: `num_trials`, or the number of points of a grid if that is smaller."""
    if params.sampler != "grid":
        return params.num_trials
    return min(params.num_trials, math.prod(len(values) for values in space.grid().values()))


def count(study: optuna.Study) -> Count:
    """The numbers of finished trials and of trials under way; waiting trials do not count."""
    trials = study.get_trials(deepcopy=False)
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    return Count(sum(map(is_finished, trials)), running)


def is_finished(trial: FrozenTrial) -> bool:
    """Whether the trial is COMPLETE, PRUNED, or failed because of its values. A trial whose worker died is not."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and "error" in trial.user_attrs
    )


def is_surplus(study: optuna.Study, number: int, total: int) -> bool:
    """Whether trial `number` is one too many because another machine started one at the same time."""
    trials = study.get_trials(deepcopy=False)
    started = [each.number for each in trials if is_finished(each) or each.state == TrialState.RUNNING]
    return number not in sorted(started)[:total]


def reclaim(study: optuna.Study) -> None:
    """Fails the trials of dead workers and queues them again: at once for this machine, else by missing heartbeats."""
    with quiet():
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _is_abandoned(trial):
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
                take_over(study, trial)


def _is_abandoned(trial: FrozenTrial) -> bool:
    if "process" in trial.user_attrs:
        return processes.is_dead(trial.user_attrs["process"])
    # The worker died before the first heartbeat. If there was one, Optuna notices that it has stopped.
    assert trial.datetime_start is not None
    return datetime.now() - trial.datetime_start > NAMELESS


def is_alive_here(trial: FrozenTrial) -> bool:
    """Whether a living process on this host runs the trial."""
    process = trial.user_attrs.get("process", {})
    return processes.is_here(process) and not processes.is_dead(process)


def take_over(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the values of a trial whose worker died for another try, and closes its MLflow run."""
    try_again(study, trial)  # first, because this process may be killed while it waits for the store
    with contextlib.suppress(ValueError):  # if the store is away, the next start closes the run
        if (run_id := trial.user_attrs.get("mlflow.run_id")) and _is_left(run_id, trial):
            recovery.fail(run_id, "its worker died; another worker continues the trial", {"optuna.state": "FAIL"})


def _is_left(run_id: str, trial: FrozenTrial) -> bool:
    """Whether the run is still as the trial's worker left it. A worker on another machine may have resumed it."""
    if (run := store.find(run_id)) is None:
        return False
    of_run, of_trial = processes.of_tags(run.data.tags), trial.user_attrs.get("process", {})
    return all(of_run.get(name) == of_trial.get(name) for name in processes.NAMES)


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the values of an unfinished trial for another try."""
    again = copy.copy(trial)
    # All other attributes describe the dead process.
    again.user_attrs = {GOES_ON_WITH: trial.user_attrs["mlflow.run_id"]} if "mlflow.run_id" in trial.user_attrs else {}
    with quiet():
        RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, again)


optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside this context, Optuna does not warn that heartbeats and figures are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
