"""What processes that are gone have left: runs that nobody closed, and what is still to be sent."""

import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline import disk
from pipeline.progress import say
from pipeline.text import HIDDEN, without_passwords
from pipeline.tracking import claims, journal, locks, outbox, processes, store
from pipeline.tracking.entries import Damaged, end_last_line, unsealed
from pipeline.tracking.outbox import Outbox, Send, Transient
from pipeline.tracking.sender import SEND, Sender

log = logging.getLogger(__name__)


def close_dead_runs(experiment_id: str) -> None:
    """Closes the experiment's runs whose processes ended without a word."""
    for stored in store.Client().search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if processes.is_dead(stored.data.tags):
            try:
                _close_dead_run(stored.info.run_id)
            except ValueError as error:  # what waits of one run is nothing to another
                say(f"run {stored.info.run_id} is left as it is: {error}")


def _close_dead_run(run_id: str) -> None:
    with claims.alone(run_id):  # another process may go on with it at this moment
        tags = store.stored_run(run_id).data.tags
        if processes.is_dead(tags):
            fail(run_id, _ended(tags))


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
            client.set_tag(run_id, name, without_passwords(value))
        client.set_terminated(run_id, "FAILED")
    except MlflowException as error:
        raise store.unusable(error) from None


def send(run_id: str = "") -> None:
    """Sends what processes that are gone have left unsent, of one run or all, to the store in use.

    What is of a run that it does not hold stays. Raises ValueError where what is of `run_id` is not taken; what is not
    of the others stays too.
    """
    for folder, header in abandoned_journals(run_id):
        is_done = outbox.refusals(folder) and is_sent(folder)
        if header["uri"] != without_passwords(store.uri()) or is_done:
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

    Returns how many entries were sent. Raises ValueError when the store is away, where it would refuse them all, as it
    does not hold the run, or holds it as deleted, and where it has refused some, or some are damaged: those stay.
    """
    run_id = header["run_id"]
    _use_store_of(header)
    is_there = store.is_there(run_id)
    if not is_there and not (is_sent(folder) and not outbox.refusals(folder)):
        raise ValueError(
            f"run {run_id} is not in {header['uri']}, or deleted there: `mlflow runs restore --run-id {run_id}` brings "
            f"it back; whoever has no use for it any more may remove {folder}"
        )
    num_sent = _replay(folder, header, refused_too=True)
    if is_there:
        _close_dead_run(run_id)
    disk.remove_if_empty(run_id)
    if reasons := outbox.refusals(folder):
        raise ValueError(
            f"run {run_id}: entries that were not taken stay in {folder}, which whoever has no use for them may remove "
            f"({len(reasons)}, the first: {reasons[0]})"
        )
    return num_sent


def _use_store_of(header: Mapping[str, str]) -> None:
    """Uses the store that a journal is for; the environment has its password, as no file on this disk does."""
    if header["uri"] == without_passwords(store.uri()):
        return
    if HIDDEN in header["uri"]:
        raise ValueError(
            f"tracking store {header['uri']}: its password is kept nowhere; set MLFLOW_TRACKING_URI to that address "
            "with its password, and send it again"
        )
    store.use(header["uri"])


def _replay(folder: Path, header: Mapping[str, str], refused_too: bool = False) -> int:
    unwanted: Collection[str] = ()
    stored = store.stored_run(header["run_id"]) if store.is_there(header["run_id"]) else None
    if stored is not None and _is_gone_on_with(stored, since=_start_time(folder)):
        if stored.info.status == "RUNNING":
            return 0  # until it has ended, nobody knows what is still wanted
        if stored.info.status == "FINISHED":
            # A training that continued logged all again. A sweep logged only how it ended, as its trials went on.
            unwanted = {"status"} if stored.data.tags.get("step") == "sweep" else SEND.keys()
    try:
        return replay(folder, Sender(header["run_id"], store.uri()), unwanted, refused_too)
    except (Transient, OSError) as error:
        raise ValueError(f"tracking store {header['uri']}: {store.first_line(error)}") from None


def _is_gone_on_with(stored: StoredRun, since: int) -> bool:
    """Whether another process reopened the run after that time (ns), when everything logged until then had arrived."""
    reopened = stored.data.tags.get(processes.REOPENED, "")
    return reopened.isdecimal() and int(reopened) > since


def _ended(tags: Mapping[str, str]) -> str:
    return f"process {processes.of_tags(tags).get('process.pid')} ended without closing the run"


def abandoned_journals(run_id: str = "") -> Iterator[tuple[Path, Mapping[str, str]]]:
    """(folder, header) of each journal that nobody writes any more and that holds what was not sent, oldest first."""
    found = disk.run_folder(run_id).glob("journal-*") if run_id else disk.runs_folder().glob("*/journal-*")
    for folder in sorted(found, key=lambda folder: folder.name):
        with suppress(FileNotFoundError, Damaged):  # another process has sent it meanwhile; `damaged_journals` has it
            header = _header(folder)
            if not ((folder / outbox.CLOSED).exists() or processes.is_dead(_with_sign(folder, header))):
                continue
            if _leads_elsewhere(folder, header):
                log.warning("%s is no journal of this project: left as it is", folder)
            else:
                yield folder, header


def damaged_journals() -> Iterator[Path]:
    """The folder of each journal that holds entries, and no header that says where they are to go."""
    for folder in sorted(disk.runs_folder().glob("*/journal-*")):
        if (folder / outbox.ENTRIES).exists():
            try:
                _header(folder)
            except (FileNotFoundError, Damaged):
                if folder.exists():  # else another process has sent it meanwhile
                    yield folder


def replay(folder: Path, send: Send, unwanted: Collection[str] = (), refused_too: bool = False) -> int:
    """Sends what is left in a journal, but for the `unwanted` kinds, and removes it. Returns how many entries it was.

    With `refused_too`, what was refused before is tried again. What is refused now, or damaged, is logged, and the
    journal stays with a list of that. Of several processes of a user that try to, one does, and the others wait.
    Raises Transient or OSError where the rest may be sent later; what was sent is not sent again.
    """
    with locks.held(folder.name, "another process, which sends the same"):
        if not folder.exists():
            return 0
        (folder / outbox.ENTRIES).touch()  # one that is gone is as good as one that has lost all
        end_last_line(folder / outbox.ENTRIES)
        entries = Outbox(folder, send, unwanted)
        if refused_too:
            entries.go_back()
        while entries.send_next():
            pass
        entries.expect(outbox.count(folder))
        if not outbox.refusals(folder):
            shutil.rmtree(folder)
        return entries.num_sent


def is_sent(folder: Path) -> bool:
    """Whether nothing that a journal holds is left to send."""
    return not Outbox(folder, lambda *_: None).has_more()


def _start_time(folder: Path) -> int:
    """When a journal was begun, in ns since 1970; of one with another name, now."""
    stamp = folder.name.split("-")[1]
    return int(stamp) if stamp.isdecimal() else time.time_ns()


def _leads_elsewhere(folder: Path, header: Mapping[str, str]) -> bool:
    """Whether sending or removing the journal would touch what is not its own: it has no links, and one run."""
    links = (path.is_symlink() for path in (folder.parent, folder, *folder.rglob("*")))
    return header["run_id"] != folder.parent.name or any(links)


def _with_sign(folder: Path, header: Mapping[str, str]) -> Mapping[str, str]:
    """The header, and when its process was seen last, for one of another host."""
    return {**header, "process.seen": f"{(folder / journal.HEADER).stat().st_mtime:.0f}"}


def _header(folder: Path) -> Mapping[str, str]:
    """What a journal's header says. Raises FileNotFoundError where there is none, Damaged where it says nothing."""
    try:
        header = unsealed((folder / journal.HEADER).read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(str(error)) from None
    if not all(isinstance(value, str) for value in header.values()) or not {"run_id", "uri"} <= header.keys():
        raise Damaged(f"{folder / journal.HEADER}: it names no run and store")
    return header
