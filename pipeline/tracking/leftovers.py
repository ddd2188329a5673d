"""What processes that are gone have left: runs that nobody closed, and what is still to be sent."""

from collections.abc import Collection, Mapping
from pathlib import Path

from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline.progress import say
from pipeline.tracking import journal, local, processes, store
from pipeline.tracking.sending import SEND, Sender


def close_dead_runs(experiment_id: str) -> None:
    """Closes the experiment's runs whose processes ended without a word."""
    for stored in store.Client().search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        tags = stored.data.tags
        if processes.is_dead(tags):
            try:
                fail(stored.info.run_id, _ended(tags))
            except ValueError as error:  # what waits of one run is nothing to another
                say(f"run {stored.info.run_id} is left as it is: {error}")


def fail(run_id: str, message: str, tags: Mapping[str, str] | None = None) -> None:
    """Closes a run whose process no longer can, once what it left unsent is sent, unless that has closed it.

    Raises ValueError where the store does not take that.
    """
    send(run_id)
    client = store.Client()
    try:
        if client.get_run(run_id).info.status != "RUNNING":
            return
        for name, value in {"error": message, **(tags or {})}.items():
            client.set_tag(run_id, name, value)
        client.set_terminated(run_id, "FAILED")
    except MlflowException as error:
        raise store.unusable(error) from None


def send(run_id: str = "") -> None:
    """Sends what processes that are gone have left unsent, of one run or all, to the store in use.

    What is of a run that it does not hold stays. Raises ValueError where what is of `run_id` is not taken; what is not
    of the others stays too.
    """
    for folder, header in journal.leftovers(run_id):
        if header["uri"] != store.uri():
            continue
        try:
            if store.is_there(header["run_id"]):
                _replay(folder, header)
        except ValueError as error:
            if run_id:
                raise
            say(f"not sent, it stays in {folder}: {error}")


def complete(folder: Path, header: Mapping[str, str]) -> int:
    """Sends what is left of a journal to its own store, and closes its run where no process will.

    Returns how many entries were sent. Raises ValueError when the store is away, and where it would refuse them all,
    as it does not hold the run, or holds it as deleted.
    """
    run_id = header["run_id"]
    store.use(header["uri"])
    is_there = store.is_there(run_id)
    if not is_there and not journal.is_sent(folder):
        raise ValueError(
            f"run {run_id} is not in {header['uri']}, or deleted there: `mlflow runs restore --run-id {run_id}` brings "
            f"it back; whoever has no use for it any more may remove {folder}"
        )
    num_sent = _replay(folder, header)
    if is_there:
        stored = store.stored_run(run_id)
        if stored.info.status == "RUNNING" and processes.is_dead(stored.data.tags):
            fail(run_id, _ended(stored.data.tags))
    local.remove_if_empty(run_id)
    return num_sent


def _replay(folder: Path, header: Mapping[str, str]) -> int:
    unwanted: Collection[str] = ()
    stored = store.stored_run(header["run_id"]) if store.is_there(header["run_id"]) else None
    if stored is not None and _is_gone_on_with(stored, since=journal.begun(folder)):
        if stored.info.status == "RUNNING":
            return 0  # until it has ended, nobody knows what is still wanted
        if stored.info.status == "FINISHED":
            # All of a training was told again; of a sweep, whose trials went on, only how it ended.
            unwanted = {"status"} if stored.data.tags.get("step") == "sweep" else SEND.keys()
    try:
        return journal.replay(folder, Sender(header["run_id"], header["uri"]), unwanted)
    except (journal.Transient, OSError) as error:
        raise ValueError(f"tracking store {header['uri']}: {store.first_line(error)}") from None


def _is_gone_on_with(stored: StoredRun, since: int) -> bool:
    """Whether another process reopened the run after that time (ns), when what was told until then had arrived."""
    reopened = stored.data.tags.get(processes.REOPENED, "")
    return reopened.isdecimal() and int(reopened) > since


def _ended(tags: Mapping[str, str]) -> str:
    return f"process {processes.of_tags(tags).get('process.pid')} ended without closing the run"
