"""Writes everything that is tracked to this disk first; a background thread sends it in order.

So the training never waits for the network or the server. Entries wait on disk, not in memory, and are deleted once
the store has acknowledged them. An entry is sent twice if its answer was lost; the sender makes that harmless.
"""

import errno
import logging
import os
import shutil
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
)

from pipeline import disk
from pipeline.disk import replacing, sync
from pipeline.text import all_without_passwords, without_passwords
from pipeline.tracking import outbox, processes
from pipeline.tracking.entries import sealed
from pipeline.tracking.outbox import ENTRIES, Outbox, Send, is_worth_another_try

log = logging.getLogger(__name__)

FILES, HEADER = "files", "header.json"
LONGEST_PAUSE_SECONDS = 8  # between two tries
SILENT_TRIES = 5  # tries to send an entry before a warning, about 8 s


left_behind: list[Path] = []  # journals that this process could not send completely


class Journal:
    """The entries that this process writes for one run, sent in the background.

    With `signs`, the run also gets a sign of life from time to time.
    """

    def __init__(self, run_id: str, uri: str, send: Send, signs: bool = True) -> None:
        disk.state_folder()
        self.folder = disk.run_folder(run_id) / f"journal-{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        self._header = sealed({"run_id": run_id, "uri": without_passwords(uri), **processes.this()})
        self._file = self._new_file()
        self._count = 0
        self._writing = threading.Lock()
        self._was_gone = False
        self._send = send
        self._signs = signs
        self._outbox = Outbox(self.folder, send)
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._send_all, self._give_signs)]
        for thread in self._threads:
            thread.start()

    @property
    def refused(self) -> list[str]:
        """Why the store refused entries: one reason for each."""
        return self._outbox.refused

    def append(self, kind: str, **content: Any) -> None:
        """Adds an entry, which is on the disk when this returns. Raises OSError if it cannot be written."""
        content = all_without_passwords(content)
        with self._writing:
            entry = {"kind": kind, "at": int(time.time() * 1000), **content, "number": self._count}
            self._file.write(sealed(entry) + "\n")
            self._file.flush()
            self._count += 1  # after the write: an interrupt in between leaves an extra entry, never a missing one
            self._restore()
            sync(self.folder / ENTRIES)
        with self._changed:
            self._changed.notify_all()

    def file(self, name: str) -> Path:
        """Where to write a file that belongs to the next entry, which refers to it by its `relative` path."""
        with self._writing:
            self._restore()
        path = self.folder / FILES / uuid.uuid4().hex[:12] / name
        path.parent.mkdir()
        return path

    def relative(self, path: Path) -> str:
        """The path by which an entry refers to a file of the journal."""
        return path.relative_to(self.folder).as_posix()

    def flush(self, seconds: float) -> bool:
        """Waits at most `seconds` until everything is sent. Returns whether it is."""
        with self._writing:
            self._restore()
        with self._changed:
            return self._changed.wait_for(lambda: not self._outbox.has_more(), seconds)

    def close(self) -> bool:
        """Stops sending. Returns whether the store accepted everything; if so, the journal is deleted."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=1.0)
        with self._writing, suppress(FileNotFoundError):
            self._restore()
        self._file.close()
        if self._outbox.has_more():
            outbox.close(self.folder, self._count)
            left_behind.append(self.folder)
            return False
        self._outbox.list_lost(self._count)
        if self.refused:
            outbox.close(self.folder, self._count)
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _new_file(self) -> TextIO:
        """The open file of entries, in a folder with everything that a journal needs."""
        (self.folder / FILES).mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / HEADER) as path:
            path.write_text(self._header, encoding="utf-8")
        return (self.folder / ENTRIES).open("a+", encoding="utf-8")

    def _restore(self) -> None:
        """Writes the journal again if somebody has removed it. Raises FileNotFoundError the first time."""
        if (self.folder / ENTRIES).exists():
            return
        self._file.seek(0)  # the system keeps the content of a removed file while it is open
        content = self._file.read()
        self._file.close()
        self._file = self._new_file()
        self._file.write(content)
        self._file.flush()
        if not self._was_gone:
            self._was_gone = True
            raise FileNotFoundError(errno.ENOENT, "it was removed during the run", str(self.folder))

    def _send_all(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception(is_worth_another_try),
            wait=wait_exponential(0.5, max=LONGEST_PAUSE_SECONDS),
            stop=stop_when_event_set(self._ended),
            sleep=sleep_using_event(self._ended),
            before_sleep=_say_once,
        )
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
            if self._ended.is_set():
                return
            try:
                retrying(self._outbox.send_next)
            except RetryError:
                return
            with self._changed:
                self._changed.notify_all()

    def _give_signs(self) -> None:
        """Marks the header on this disk and the run as alive. It has its own thread, as one entry may take long."""
        while not self._ended.wait(processes.SIGN_SECONDS):
            with suppress(Exception):  # the next sign is enough
                os.utime(self.folder / HEADER)
                if self._signs:
                    self._send(self.folder, {"kind": "tags", "values": processes.as_tags(processes.sign_of_life())})

    def _has_work(self) -> bool:
        return self._ended.is_set() or self._outbox.has_more()


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == SILENT_TRIES and state.outcome is not None and (error := state.outcome.exception()):
        log.warning("not tracked yet: %s; still trying", " ".join(str(error).split()))


def unsent() -> str:
    """A line for the user if this process could not send everything; else empty."""
    if not left_behind:
        return ""
    folders = ", ".join(str(folder) for folder in left_behind)
    return f"the tracking store has not received everything; `python -m pipeline sync` sends the rest from {folders}"
