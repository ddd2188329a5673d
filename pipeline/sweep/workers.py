"""The trials of a study among its workers: which are done, which one too many, and those of the dead taken over."""

import contextlib
import copy
import math
from dataclasses import dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from pipeline.params import SweepParams
from pipeline.sweep.quiet import quiet
from pipeline.sweep.space import Space
from pipeline.tracking import leftovers, processes, store

GOES_ON_WITH = "goes_on_with"  # the run of an earlier trial, whose worker died
MAX_RETRIES = 2  # of one trial whose workers die


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
        if processes.is_dead(trial.user_attrs.get("process", {})):
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another worker was faster
                study.tell(trial.number, state=TrialState.FAIL)
                take_over(study, trial)


def take_over(study: optuna.Study, trial: FrozenTrial) -> None:
    """Closes the MLflow run of a trial whose worker died, and queues its values for another try."""
    with contextlib.suppress(ValueError):  # a store that is away: the next start closes the run
        if (run_id := trial.user_attrs.get("mlflow.run_id")) and store.is_there(run_id):
            leftovers.fail(run_id, "its worker died; another goes on with it", {"optuna.state": "FAIL"})
    try_again(study, trial)


def try_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queues the values of a trial that did not come to its end."""
    again = copy.copy(trial)
    # The rest tells of a process that is gone.
    again.user_attrs = {GOES_ON_WITH: trial.user_attrs["mlflow.run_id"]} if "mlflow.run_id" in trial.user_attrs else {}
    with quiet():
        RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, again)
