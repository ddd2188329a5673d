"""Cleans up after dead processes: closes their runs, and sends the entries in their journals."""

import logging
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Run as StoredRun

from pipeline import disk
from pipeline.progress import say
from pipeline.text import HIDDEN, without_passwords
from pipeline.tracking import claims, journal, locks, outbox, processes, store
from pipeline.tracking.entries import Damaged, end_last_line, unsealed
from pipeline.tracking.outbox import Outbox, Send, Transient
from pipeline.tracking.sender import SEND, Sender

log = logging.getLogger(__name__)


def close_dead_runs(experiment_id: str) -> None:
    """Closes the experiment's runs whose processes have died without closing them."""
    for stored in store.Client().search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if processes.is_dead(stored.data.tags):
            try:
                _close_dead_run(stored.info.run_id)
            except ValueError as error:  # a problem with one run must not stop the others
                say(f"run {stored.info.run_id} stays open: {error}")


def _close_dead_run(run_id: str) -> None:
    with claims.exclusive(run_id):  # another process may resume it at this moment
        tags = store.stored_run(run_id).data.tags
        if processes.is_dead(tags):
            number = processes.of_tags(tags).get("process.pid")
            fail(run_id, f"process {number} ended without closing the run")


def fail(run_id: str, message: str, tags: Mapping[str, str] | None = None) -> None:
    """Sends what a dead process left unsent of its run, and then closes the run as FAILED if it is still open.

    Raises ValueError if the store does not accept this.
    """
    send(run_id)
    client = store.Client()
    with store.answering():
        if client.get_run(run_id).info.status != "RUNNING":
            return
        for name, value in {"error": message, **(tags or {})}.items():
            client.set_tag(run_id, name, without_passwords(value))
        client.set_terminated(run_id, "FAILED")


def send(run_id: str = "") -> None:
    """Sends the entries that dead processes left unsent to the current store, for one run or for all.

    Entries are kept if the store does not know their run, or does not accept them. Raises ValueError if it does not
    accept the entries of `run_id`.
    """
    for folder, header in abandoned_journals(run_id):
        is_done = outbox.refusals(folder) and is_sent(folder)
        if header["uri"] != without_passwords(store.uri()) or is_done:
            continue
        try:
            if (stored := store.find(header["run_id"])) is not None:
                _replay(folder, header, stored)
        except ValueError as error:
            if run_id:
                raise
            say(f"not sent, kept in {folder}: {error}")


def complete(folder: Path, header: Mapping[str, str]) -> int:
    """Sends the rest of a journal to its own store, and closes its run if its process is dead.

    Returns the number of entries sent. Raises ValueError if the store cannot be reached, if the run is missing or
    deleted there, or if entries were refused or are damaged. Entries that were not sent are kept.
    """
    run_id = header["run_id"]
    _use_store_of(header)
    stored = store.find(run_id)
    if stored is None and not (is_sent(folder) and not outbox.refusals(folder)):
        raise ValueError(
            f"run {run_id} is missing or deleted in {header['uri']}: restore a deleted run with `mlflow runs restore "
            f"--run-id {run_id}`, or remove {folder} if you no longer need it"
        )
    num_sent = _replay(folder, header, stored, refused_too=True)
    if stored is not None:
        _close_dead_run(run_id)
    disk.remove_if_empty(run_id)
    if reasons := outbox.refusals(folder):
        raise ValueError(
            f"run {run_id}: refused entries are kept in {folder} ({len(reasons)}, the first: {reasons[0]}); remove it "
            "if you no longer need them"
        )
    return num_sent


def _use_store_of(header: Mapping[str, str]) -> None:
    """Uses the store that a journal is for. The environment must give its password: no file on this disk has it."""
    if header["uri"] == without_passwords(store.uri()):
        return
    if HIDDEN in header["uri"]:
        raise ValueError(
            f"tracking store {header['uri']}: its password is not stored on this disk; set MLFLOW_TRACKING_URI to that "
            "address with its password, and run this again"
        )
    store.use(header["uri"])


def _replay(folder: Path, header: Mapping[str, str], stored: StoredRun | None, refused_too: bool = False) -> int:
    unwanted: Collection[str] = ()
    if stored is not None and _was_reopened(stored, since=_start_time(folder)):
        if stored.info.status == "RUNNING":
            return 0  # until it has ended, nobody knows which entries are still needed
        if stored.info.status == "FINISHED":
            # A resumed training has logged everything again. A resumed sweep has logged only its new status.
            unwanted = {"status"} if stored.data.tags.get("step") == "sweep" else SEND.keys()
    try:
        return replay(folder, Sender(header["run_id"], store.uri()), unwanted, refused_too)
    except (Transient, OSError) as error:
        raise ValueError(f"tracking store {header['uri']}: {store.first_line(error)}") from None


def _was_reopened(stored: StoredRun, since: int) -> bool:
    """Whether another process reopened the run after that time (ns), with everything logged before already stored."""
    reopened = stored.data.tags.get(processes.REOPENED, "")
    return reopened.isdecimal() and int(reopened) > since


def abandoned_journals(run_id: str = "") -> Iterator[tuple[Path, Mapping[str, str]]]:
    """(folder, header) of each journal whose process has ended and that may hold unsent entries, oldest first."""
    found = disk.run_folder(run_id).glob("journal-*") if run_id else disk.runs_folder().glob("*/journal-*")
    for folder in sorted(found, key=lambda folder: folder.name):
        # FileNotFoundError: another process has just sent it. Damaged: `damaged_journals` lists it.
        with suppress(FileNotFoundError, Damaged):
            header = _header(folder)
            if not ((folder / outbox.CLOSED).exists() or processes.is_dead(_with_sign(folder, header))):
                continue
            if _leads_elsewhere(folder, header):
                log.warning("%s is not a journal of this project: skipped", folder)
            else:
                yield folder, header


def damaged_journals() -> Iterator[Path]:
    """The folder of each journal with entries but without a readable header, which would name their run and store."""
    for folder in sorted(disk.runs_folder().glob("*/journal-*")):
        if (folder / outbox.ENTRIES).exists():
            try:
                _header(folder)
            except (FileNotFoundError, Damaged):
                if folder.exists():  # if not, another process has just sent it
                    yield folder


def replay(folder: Path, send: Send, unwanted: Collection[str] = (), refused_too: bool = False) -> int:
    """Sends the rest of a journal, except `unwanted` kinds of entries, and removes it. Returns how many were sent.

    With `refused_too`, entries that were refused before are tried again. Entries that are refused now, or damaged, are
    logged and listed, and the journal is kept. If several processes of a user try this, one does it and the others
    wait. Raises Transient or OSError if the rest may be sent later; the entries sent so far are not sent again.
    """
    with locks.held(folder.name, "another process that sends the same journal"):
        if not folder.exists():
            return 0
        (folder / outbox.ENTRIES).touch()  # a missing file of entries is treated as an empty one
        end_last_line(folder / outbox.ENTRIES)
        entries = Outbox(folder, send, unwanted)
        if refused_too:
            entries.go_back()
        while entries.send_next():
            pass
        entries.list_lost(outbox.count(folder))
        if not outbox.refusals(folder):
            shutil.rmtree(folder)
        return entries.num_sent


def is_sent(folder: Path) -> bool:
    """Whether every entry of a journal has been sent."""
    return not Outbox(folder, lambda *_: None).has_more()


def _start_time(folder: Path) -> int:
    """When a journal was started, in ns since 1970; the time now if its name does not say."""
    stamp = folder.name.split("-")[1]
    return int(stamp) if stamp.isdecimal() else time.time_ns()


def _leads_elsewhere(folder: Path, header: Mapping[str, str]) -> bool:
    """Whether sending or removing the journal could touch files outside it: it has links, or names another run."""
    links = (path.is_symlink() for path in (folder.parent, folder, *folder.rglob("*")))
    return header["run_id"] != folder.parent.name or any(links)


def _with_sign(folder: Path, header: Mapping[str, str]) -> Mapping[str, str]:
    """The header, with the last sign of life of its process, for a process of another host."""
    return {**header, "process.seen": f"{(folder / journal.HEADER).stat().st_mtime:.0f}"}


def _header(folder: Path) -> Mapping[str, str]:
    """The content of a journal's header. Raises FileNotFoundError if there is none, Damaged if it is not valid."""
    try:
        header = unsealed((folder / journal.HEADER).read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(str(error)) from None
    if not all(isinstance(value, str) for value in header.values()) or not {"run_id", "uri"} <= header.keys():
        raise Damaged(f"{folder / journal.HEADER} does not name a run and a store")
    return header
