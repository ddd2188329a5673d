"""What is under way, how far it is, and how long it will take: once, or again and again."""

import sys
from collections.abc import Sequence

from pipeline.params import StatusParams
from pipeline.progress import answer, left
from pipeline.progress.table import follow, table
from pipeline.tracking import store, under_way
from pipeline.tracking.under_way import PARENT, UnderWay

HEAD = ["under way", "step", "done", "left"]


def run(params: StatusParams) -> None:
    """Lists the store's runs and studies that are under way; with `follow`, on a terminal, until none is."""
    if params.follow and sys.stdout.isatty():
        follow(_look, params.every_seconds)
    else:
        answer(_look()[0])


def _look() -> tuple[str, bool]:
    """What is under way, as a table for standard output, and whether any of it goes on."""
    found = under_way.runs()
    if not found:
        return f"nothing is under way in {store.uri()}", False
    is_terminal = sys.stdout.isatty()
    rows = [_row(found, position, is_terminal) for position in range(len(found))]
    head = HEAD if is_terminal else [*HEAD, "run"]
    told = [table(head, rows, sys.stdout, wraps=HEAD[0])]
    if is_terminal:
        # Rows have no room for ids, which are of use for what can go on.
        told += [f"dead, its process is gone: run {each.run.info.run_id}" for each in found if each.is_dead]
    return "\n".join(told), not all(each.is_dead for each in found)


def _row(found: Sequence[UnderWay], position: int, is_terminal: bool) -> list[str]:
    each = found[position]
    info = each.run.info
    name = f"{'  ' * each.depth}{info.run_name}"
    done = f"{each.done}/{each.total} {each.unit}s" if each.unit else ""
    row = [name, each.run.data.tags.get("step", ""), done, _left(found, position)]
    return row if is_terminal else [*row, info.run_id]


def _left(found: Sequence[UnderWay], position: int) -> str:
    each = found[position]
    if each.is_dead:
        return "dead"
    if each.unit == "step":
        # What is known of the step under way, and the steps after it.
        inner = next((part for part in found if part.run.data.tags.get(PARENT) == each.run.info.run_id), None)
        seconds = inner.seconds_left if inner is not None and not inner.is_bound else None
        return left(seconds or 0.0, each.total - each.done - (seconds is not None))
    if each.seconds_left is None:
        return ""
    return f"{'under ' if each.is_bound else ''}{left(each.seconds_left, 0)}"
