"""The trials of a study among its workers: which are done, which one too many, and those of the dead taken over."""

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

GOES_ON_WITH = "goes_on_with"  # the run of an earlier trial, whose worker died
MAX_RETRIES = 2  # of one trial whose workers die
NAMELESS = timedelta(minutes=5)  # a trial says whose it is long before: as soon as its sampler has made up its mind


@dataclass(frozen=True)
class Count:
    """Trials by what is left to do: tried to their end, and under way."""

    finished: int
    running: int


def total_trials(params: SweepParams, space: Space) -> int:
    """How many trials finish the study: `num_trials`, or all points of a grid that has fewer."""
    if params.sampler != "grid":
        return params.num_trials
    return min(params.num_trials, math.prod(len(values) for values in space.grid().values()))


def count(study: optuna.Study) -> Count:
    """The trials tried to their end and those under way; waiting ones are neither."""
    trials = study.get_trials(deepcopy=False)
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    return Count(sum(map(is_finished, trials)), running)


def is_finished(trial: FrozenTrial) -> bool:
    """Whether the trial was tried to its end: complete, pruned, or failed of itself and not with its worker."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and "error" in trial.user_attrs
    )


def is_surplus(study: optuna.Study, number: int, total: int) -> bool:
    """Whether trial `number` is one too many, asked for at the same time on another machine."""
    trials = study.get_trials(deepcopy=False)
    started = [each.number for each in trials if is_finished(each) or each.state == TrialState.RUNNING]
    return number not in sorted(started)[:total]


def reclaim(study: optuna.Study) -> None:
    """Fails the trials of dead workers and queues them again: at once on this machine, elsewhere by their heartbeat."""
    with quiet():
        optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if _is_of_the_dead(trial):
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
                take_over(study, trial)


def _is_of_the_dead(trial: FrozenTrial) -> bool:
    if "process" in trial.user_attrs:
        return processes.is_dead(trial.user_attrs["process"])
    # Killed before its first heartbeat; where there was one, Optuna sees that it has stopped.
    assert trial.datetime_start is not None
    return datetime.now() - trial.datetime_start > NAMELESS


def is_alive_here(trial: FrozenTrial) -> bool:
    """Whether the trial is of a process that lives on this host."""
    process = trial.user_attrs.get("process", {})
    return processes.is_here(process) and not processes.is_dead(process)


def take_over(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the values of a trial whose worker died for another try, and closes its MLflow run."""
    try_again(study, trial)  # first: while a store is waited for this process may be killed, too
    with contextlib.suppress(ValueError):  # a store that is away: the next start closes the run
        if (run_id := trial.user_attrs.get("mlflow.run_id")) and _is_left(run_id, trial):
            recovery.fail(run_id, "its worker died; another goes on with it", {"optuna.state": "FAIL"})


def _is_left(run_id: str, trial: FrozenTrial) -> bool:
    """Whether the run is as the trial's worker left it: on another machine its values may be under way already."""
    if not store.is_there(run_id):
        return False
    of_run, of_trial = processes.of_tags(store.stored_run(run_id).data.tags), trial.user_attrs.get("process", {})
    return all(of_run.get(name) == of_trial.get(name) for name in processes.NAMES)


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the values of a trial that did not come to its end."""
    again = copy.copy(trial)
    # The rest tells of a process that is gone.
    again.user_attrs = {GOES_ON_WITH: trial.user_attrs["mlflow.run_id"]} if "mlflow.run_id" in trial.user_attrs else {}
    with quiet():
        RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, again)


optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's warnings that heartbeats and figures are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
