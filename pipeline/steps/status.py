"""Shows the runs under way, their progress and the time left: once, or repeatedly."""

import sys
from collections.abc import Sequence

from pipeline.history import status
from pipeline.history.status import OpenRun
from pipeline.params import StatusParams
from pipeline.progress import answer, left
from pipeline.progress.table import follow, table
from pipeline.tracking import store

HEAD = ["under way", "step", "done", "left"]


def run(params: StatusParams) -> None:
    """Lists the store's runs and studies under way. With `follow`, on a terminal, repeats until none is left."""
    if params.follow and sys.stdout.isatty():
        follow(_overview, params.every_seconds)
    else:
        answer(_overview()[0])


def _overview() -> tuple[str, bool]:
    """The runs under way, as a table for standard output, and whether any of them is alive."""
    found = status.runs()
    if not found:
        return f"nothing is under way in {store.uri()}", False
    is_terminal = sys.stdout.isatty()
    rows = [_row(found, each, is_terminal) for each in found]
    head = HEAD if is_terminal else [*HEAD, "run"]
    lines = [table(head, rows, sys.stdout, wraps=HEAD[0])]
    if is_terminal:
        # Rows have no room for ids, which a user needs to resume a dead run.
        lines += [f"dead, its process is gone: run {each.run.info.run_id}" for each in found if each.is_dead]
    return "\n".join(lines), not all(each.is_dead for each in found)


def _row(found: Sequence[OpenRun], each: OpenRun, is_terminal: bool) -> list[str]:
    info, far = each.run.info, each.progress
    done = f"{far.done}/{far.total} {each.unit}s" if far.total else ""
    row = [f"{'  ' * each.depth}{info.run_name}", each.run.data.tags.get("step", ""), done, _left(found, each)]
    return row if is_terminal else [*row, info.run_id]


def _left(found: Sequence[OpenRun], each: OpenRun) -> str:
    far = each.progress
    if each.is_dead:
        return "dead"
    if each.unit == "step":
        # The time left of the current step, and the number of steps after it.
        parts = [part.progress for part in found if part.run.data.tags.get(store.PARENT_TAG) == each.run.info.run_id]
        seconds = parts[0].seconds_left if parts and not parts[0].is_bound else None
        return left(seconds or 0.0, far.total - far.done - (seconds is not None))
    if far.seconds_left is None:
        return ""
    return f"{'under ' if far.is_bound else ''}{left(far.seconds_left, 0)}"
