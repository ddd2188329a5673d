"""What is under way in the tracking store, as its runs tell it; nothing is written there."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline.tracking import processes, store

PARENT = "mlflow.parentRunId"
RECENT = 100  # trials that tell how long one takes


class Progress(NamedTuple):
    """How far something is, in units of its own."""

    done: int
    total: int  # 0 where it is not known
    seconds_left: float | None = None  # None where that is not known
    is_bound: bool = False  # whether it is less than that


@dataclass(frozen=True)
class OpenRun:
    """A run that has not ended."""

    run: StoredRun
    depth: int  # of those that it is a part of
    is_dead: bool  # its process is gone
    unit: str  # what it consists of; empty where that is not known
    progress: Progress


def runs() -> list[OpenRun]:
    """The store's runs that have not ended, those that are a part of one below it; the oldest first.

    Raises ValueError when the store does not answer.
    """
    if not store.is_made():
        return []
    client = store.Client()
    try:
        experiments = [each.experiment_id for each in client.search_experiments()]
        order = ["attributes.start_time ASC"]
        found = list(client.search_runs(experiments, "attributes.status = 'RUNNING'", order_by=order))
        return [_open_run(client, run, depth) for run, depth in _in_order(found)]
    except MlflowException as error:
        raise ValueError(f"tracking store {store.uri()}: {store.first_line(error)}") from None


def _in_order(found: Sequence[StoredRun]) -> Iterator[tuple[StoredRun, int]]:
    """Each run, and how deep it stands below others of them."""
    by_id = {run.info.run_id: run for run in found}
    parts: dict[str, list[str]] = {}
    for run in found:
        is_of = run.data.tags.get(PARENT, "")
        parts.setdefault(is_of if is_of in by_id else "", []).append(run.info.run_id)
    waiting = [(run_id, 0) for run_id in reversed(parts.get("", []))]
    while by_id:
        # What is left when none waits claims to be a part of itself.
        run_id, depth = waiting.pop() if waiting else (next(iter(by_id)), 0)
        if run_id in by_id:
            yield by_id.pop(run_id), depth
            waiting += [(part, depth + 1) for part in reversed(parts.get(run_id, []))]


def _open_run(client: store.Client, run: StoredRun, depth: int) -> OpenRun:
    unit, how_far = HOW.get(run.data.tags.get("step", ""), ("", _unknown))
    return OpenRun(run, depth, processes.is_dead(run.data.tags), unit, how_far(client, run))


def _unknown(client: store.Client, run: StoredRun) -> Progress:
    return Progress(0, 0)


def _epochs(client: store.Client, run: StoredRun) -> Progress:
    """Of what epochs took the middle one counts: a run that went on after a while has a long one."""
    total = _number(run.data.params.get("epochs", ""))
    points = {point.step: point.timestamp / 1000 for point in client.get_metric_history(run.info.run_id, "lr")}
    ends = [points[epoch] for epoch in sorted(points)]
    still = total - len(ends)
    if not ends:
        return Progress(0, total)
    if len(ends) == 1:  # what came before it is counted as well
        return Progress(1, total, still * max(0.0, ends[0] - run.info.start_time / 1000), is_bound=True)
    each = median(later - earlier for earlier, later in pairwise(ends))
    return Progress(len(ends), total, max(0.0, still * each - min(each, time.time() - ends[-1])))


def _trials(client: store.Client, run: StoredRun) -> Progress:
    """What trials took, for as many workers as there are trials under way.

    One that was gone on with is left out: its time holds the pause.
    """
    done, total, *_ = _tagged(client, run)
    conditions = f"tags.`{PARENT}` = '{run.info.run_id}' and tags.step = 'trial' and attributes.status "
    experiments, order = [run.info.experiment_id], ["attributes.end_time DESC"]
    recent = client.search_runs(experiments, f"{conditions} = 'FINISHED'", order_by=order, max_results=RECENT)
    ended = [trial for trial in recent if processes.REOPENED not in trial.data.tags]
    if not ended:
        return Progress(done, total)
    running = client.search_runs(experiments, f"{conditions} = 'RUNNING'")
    each = fmean((trial.info.end_time - trial.info.start_time) / 1000 for trial in ended)
    behind = [min(each, time.time() - trial.info.start_time / 1000) for trial in running]
    return Progress(done, total, max(0.0, (total - done) * each - sum(behind)) / max(1, len(running)))


def _tagged(client: store.Client, run: StoredRun) -> Progress:
    done, _, total = run.data.tags.get(processes.PROGRESS, "").partition("/")
    return Progress(_number(done), _number(total))


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


# By a run's step: what it consists of, and how far it is.
HOW: dict[str, tuple[str, Callable[[store.Client, StoredRun], Progress]]] = {
    "train": ("epoch", _epochs),
    "trial": ("epoch", _epochs),
    "sweep": ("trial", _trials),
    "seeds": ("step", _tagged),
    "main": ("step", _tagged),
}
