"""What is under way in the tracking store, as its runs tell it; nothing is written there."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline.tracking import processes, store

PARENT = "mlflow.parentRunId"
RECENT = 100  # trials that tell how long one takes


@dataclass(frozen=True)
class UnderWay:
    """A run that has not ended, and how far it is."""

    run: StoredRun
    depth: int  # of those that it is a part of
    unit: str = ""  # what it consists of; empty where that is not known
    done: int = 0
    total: int = 0
    seconds_left: float | None = None  # None where that is not known
    is_bound: bool = False  # whether it is less than that
    is_dead: bool = False  # its process is gone


def runs() -> list[UnderWay]:
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
        return [_told(client, run, depth) for run, depth in _in_order(found)]
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


def _told(client: store.Client, run: StoredRun, depth: int) -> UnderWay:
    is_dead = processes.is_dead(run.data.tags)
    how = HOW.get(run.data.tags.get("step", ""))
    if how is None:
        return UnderWay(run, depth, is_dead=is_dead)
    unit, count, time_left = how
    done, total = count(client, run)
    if not total:
        return UnderWay(run, depth, is_dead=is_dead)
    seconds, is_bound = (None, False) if is_dead else time_left(client, run, done, total)
    return UnderWay(run, depth, unit, done, total, seconds, is_bound, is_dead)


def _epochs(client: store.Client, run: StoredRun) -> tuple[int, int]:
    return len(_ends(client, run)), _number(run.data.params.get("epochs", ""))


def _tagged(client: store.Client, run: StoredRun) -> tuple[int, int]:
    done, _, total = run.data.tags.get(processes.PROGRESS, "").partition("/")
    return _number(done), _number(total)


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def _ends(client: store.Client, run: StoredRun) -> list[float]:
    """When each epoch so far ended (s)."""
    points = {point.step: point for point in client.get_metric_history(run.info.run_id, "lr")}
    return [points[step].timestamp / 1000 for step in sorted(points)]


def _of_epochs(client: store.Client, run: StoredRun, done: int, total: int) -> tuple[float | None, bool]:
    """What epochs take, of which the middle one counts: a run that went on after a while has a long one."""
    ends = _ends(client, run)
    if not ends:
        return None, False
    if len(ends) == 1:  # what came before it is counted as well
        return (total - done) * max(0.0, ends[0] - run.info.start_time / 1000), True
    each = median(later - earlier for earlier, later in pairwise(ends))
    return max(0.0, (total - done) * each - min(each, time.time() - ends[-1])), False


def _of_trials(client: store.Client, run: StoredRun, done: int, total: int) -> tuple[float | None, bool]:
    """What trials took, for as many workers as there are trials under way."""
    conditions = f"tags.`{PARENT}` = '{run.info.run_id}' and tags.step = 'trial' and attributes.status "
    experiments, order = [run.info.experiment_id], ["attributes.end_time DESC"]
    ended = client.search_runs(experiments, f"{conditions} = 'FINISHED'", order_by=order, max_results=RECENT)
    running = client.search_runs(experiments, f"{conditions} = 'RUNNING'")
    if not ended:
        return None, False
    each = fmean((trial.info.end_time - trial.info.start_time) / 1000 for trial in ended)
    now = time.time()
    behind = [min(each, now - trial.info.start_time / 1000) for trial in running]
    return max(0.0, (total - done) * each - sum(behind)) / max(1, len(running)), False


def _unknown(*_: object) -> tuple[None, bool]:
    return None, False


Count = Callable[[store.Client, StoredRun], tuple[int, int]]
TimeLeft = Callable[[store.Client, StoredRun, int, int], tuple[float | None, bool]]
# By a run's step: what it consists of, how that is counted, and what is known of the time left.
HOW: dict[str, tuple[str, Count, TimeLeft]] = {
    "train": ("epoch", _epochs, _of_epochs),
    "trial": ("epoch", _epochs, _of_epochs),
    "sweep": ("trial", _tagged, _of_trials),
    "seeds": ("step", _tagged, _unknown),
    "main": ("step", _tagged, _unknown),
}
