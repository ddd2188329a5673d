"""Reads from the tracking store which runs are under way and how far they are. Writes nothing."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

from mlflow.entities import Run as StoredRun

from pipeline.tracking import processes, store

RECENT = 100  # number of finished trials from which the duration of a trial is estimated


class Progress(NamedTuple):
    """How many units of a run are done, with their total and the time left."""

    done: int
    total: int  # 0 if unknown
    seconds_left: float | None = None  # None if unknown
    is_bound: bool = False  # whether `seconds_left` is an upper bound


@dataclass(frozen=True)
class OpenRun:
    """A run that has not ended."""

    run: StoredRun
    depth: int  # number of open runs above it
    is_dead: bool  # its process has ended
    unit: str  # epoch, trial or step; empty if unknown
    progress: Progress


def runs() -> list[OpenRun]:
    """The store's runs that have not ended, oldest first, with child runs after their parents.

    Raises ValueError if the store does not answer.
    """
    if not store.is_made():
        return []
    client = store.Client()
    with store.answering():
        experiments = [each.experiment_id for each in client.search_experiments()]
        order = ["attributes.start_time ASC"]
        found = list(client.search_runs(experiments, "attributes.status = 'RUNNING'", order_by=order))
        return [_open_run(client, run, depth) for run, depth in _in_order(found)]


def _in_order(found: Sequence[StoredRun]) -> Iterator[tuple[StoredRun, int]]:
    """(run, depth) for each run: children follow their parent, which has one level less."""
    by_id = {run.info.run_id: run for run in found}
    parts: dict[str, list[str]] = {}
    for run in found:
        parent = run.data.tags.get(store.PARENT_TAG, "")
        parts.setdefault(parent if parent in by_id else "", []).append(run.info.run_id)
    waiting = [(run_id, 0) for run_id in reversed(parts.get("", []))]
    while by_id:
        # If no run waits but some are left, their tags make them parents of each other.
        run_id, depth = waiting.pop() if waiting else (next(iter(by_id)), 0)
        if run_id in by_id:
            yield by_id.pop(run_id), depth
            waiting += [(part, depth + 1) for part in reversed(parts.get(run_id, []))]


def _open_run(client: store.Client, run: StoredRun, depth: int) -> OpenRun:
    unit, find_progress = PROGRESS_OF.get(run.data.tags.get("step", ""), ("", _unknown))
    return OpenRun(run, depth, processes.is_dead(run.data.tags), unit, find_progress(client, run))


def _unknown(client: store.Client, run: StoredRun) -> Progress:
    return Progress(0, 0)


def _epochs(client: store.Client, run: StoredRun) -> Progress:
    """Uses the median duration of an epoch, since a resumed run has one long epoch with the pause in it."""
    total = _number(run.data.params.get("epochs", ""))
    points = {point.step: point.timestamp / 1000 for point in client.get_metric_history(run.info.run_id, "lr")}
    ends = [points[epoch] for epoch in sorted(points)]
    num_left = total - len(ends)
    if not ends:
        return Progress(0, total)
    if len(ends) == 1:  # the time includes everything before the first epoch, so it is an upper bound
        return Progress(1, total, num_left * max(0.0, ends[0] - run.info.start_time / 1000), is_bound=True)
    each = median(later - earlier for earlier, later in pairwise(ends))
    return Progress(len(ends), total, max(0.0, num_left * each - min(each, time.time() - ends[-1])))


def _trials(client: store.Client, run: StoredRun) -> Progress:
    """Uses the mean duration of recent trials, divided by the number of trials under way.

    Resumed trials do not count, since their duration includes the pause.
    """
    done, total, *_ = _tagged(client, run)
    conditions = f"tags.`{store.PARENT_TAG}` = '{run.info.run_id}' and tags.step = 'trial' and attributes.status "
    experiments, order = [run.info.experiment_id], ["attributes.end_time DESC"]
    recent = client.search_runs(experiments, f"{conditions} = 'FINISHED'", order_by=order, max_results=RECENT)
    ended = [trial for trial in recent if processes.REOPENED not in trial.data.tags]
    if not ended:
        return Progress(done, total)
    running = client.search_runs(experiments, f"{conditions} = 'RUNNING'")
    each = fmean((trial.info.end_time - trial.info.start_time) / 1000 for trial in ended)
    spent = [min(each, time.time() - trial.info.start_time / 1000) for trial in running]
    return Progress(done, total, max(0.0, (total - done) * each - sum(spent)) / max(1, len(running)))


def _cases(client: store.Client, run: StoredRun) -> Progress:
    """Takes all cases as equally long."""
    done, total, *_ = _tagged(client, run)
    seconds = time.time() - run.info.start_time / 1000
    return Progress(done, total, max(0.0, seconds / done * (total - done)) if done else None)


def _tagged(client: store.Client, run: StoredRun) -> Progress:
    done, _, total = run.data.tags.get(processes.PROGRESS, "").partition("/")
    return Progress(_number(done), _number(total))


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


# By a run's step: the unit of its progress, and the function that finds its progress.
PROGRESS_OF: dict[str, tuple[str, Callable[[store.Client, StoredRun], Progress]]] = {
    "train": ("epoch", _epochs),
    "trial": ("epoch", _epochs),
    "sweep": ("trial", _trials),
    "seeds": ("step", _tagged),
    "learning_curve": ("step", _tagged),
    "robustness": ("case", _cases),
    "main": ("step", _tagged),
}
