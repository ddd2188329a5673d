"""Sends entries to a tracking store that did not answer earlier."""

from pipeline.params import SyncParams
from pipeline.progress import conclude, say
from pipeline.tracking import recovery
from pipeline.tracking.journal import HEADER
from pipeline.training.events import Failure


def run(_: SyncParams) -> None:
    """Sends every journal that no process writes any more.

    Raises Failure if a store does not take all of them, and if a journal is damaged.
    """
    unsent = []
    num_runs = 0
    for folder, header in list(recovery.abandoned_journals()):
        try:
            num_sent = recovery.complete(folder, header)
        except ValueError as error:
            unsent.append(str(error))
            say(f"run {header['run_id']}: not sent, kept in {folder}")
            continue
        num_runs += 1
        conclude(f"run {header['run_id']}: {num_sent} entries sent to {header['uri']}")
    for folder in recovery.damaged_journals():
        unsent.append(f"{folder / HEADER} is damaged: nobody can say where the entries beside it belong")
    if unsent:
        raise Failure("; ".join(dict.fromkeys(unsent)))
    if not num_runs:
        conclude("nothing to send")
