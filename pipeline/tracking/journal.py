"""What is to be tracked -> entries on this disk first, sent in their order by a thread of their own.

The training waits for neither network nor server. What waits, waits on disk, so memory stays as it is, and is gone from
there once it is acknowledged. An entry is sent twice when its answer was lost: who sends makes that harmless.
"""

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

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
from pipeline.tracking import processes

log = logging.getLogger(__name__)

Entry = dict[str, Any]
Send = Callable[[Path, Entry], None]  # (the journal's folder, entry); OSError and Transient ask to be tried again

ENTRIES, FILES, HEADER, SENT, CLOSED = "entries.jsonl", "files", "header.json", "sent", "closed"
LONGEST_PAUSE_SECONDS = 8  # between two tries
SILENT_TRIES = 5  # of an entry, some 8 s


left_behind: list[Path] = []  # journals that this process could not send to their end


class Transient(Exception):
    """What was sent may succeed later; the message says why it did not."""


class Journal:
    """The entries of one run from this process, sent while it goes on with its work.

    With `signs`, the run gets a sign of life from time to time.
    """

    def __init__(self, run_id: str, uri: str, send: Send, signs: bool = True) -> None:
        self.folder = disk.run_folder(run_id) / f"journal-{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        (self.folder / FILES).mkdir(parents=True)
        with replacing(self.folder / HEADER) as path:
            path.write_text(json.dumps({"run_id": run_id, "uri": uri, **processes.this()}), encoding="utf-8")
        self._file = (self.folder / ENTRIES).open("a", encoding="utf-8")
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
        """What was sent and will never be taken, and why."""
        return self._outbox.refused

    def append(self, kind: str, **content: Any) -> None:
        """Adds an entry; it is on the disk when this returns. Raises OSError where the disk cannot take it."""
        self._file.write(json.dumps({"kind": kind, "at": int(time.time() * 1000), **content}) + "\n")
        self._file.flush()
        sync(self.folder / ENTRIES)
        with self._changed:
            self._changed.notify_all()

    def file(self, name: str) -> Path:
        """Where to write a file that is to go with the next entry, which names it by `relative`."""
        path = self.folder / FILES / uuid.uuid4().hex[:12] / name
        path.parent.mkdir()
        return path

    def relative(self, path: Path) -> str:
        """How an entry names a file of the journal."""
        return path.relative_to(self.folder).as_posix()

    def flush(self, seconds: float) -> bool:
        """Waits until all is sent, at most so long. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._outbox.has_more(), seconds)

    def close(self) -> bool:
        """Stops sending. Returns whether all was sent; then nothing of the journal is left."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=1.0)
        self._file.close()
        if self._outbox.has_more():
            (self.folder / CLOSED).touch()
            left_behind.append(self.folder)
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _send_all(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception(_is_worth_another_try),
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
        """From a thread of its own, as one entry may take long: marks this disk and the run."""
        while not self._ended.wait(processes.SIGN_SECONDS):
            with suppress(Exception):  # the next one will do
                os.utime(self.folder / HEADER)
                if self._signs:
                    self._send(self.folder, {"kind": "tags", "values": processes.as_tags(processes.sign_of_life())})

    def _has_work(self) -> bool:
        return self._ended.is_set() or self._outbox.has_more()


class Outbox:
    """The entries of a journal's folder, sent one by one from the first that was not acknowledged."""

    def __init__(self, folder: Path, send: Send, unwanted: Collection[str] = ()) -> None:
        self.refused: list[str] = []
        self._unwanted = unwanted
        self._folder = folder
        self._send = send
        self._position = folder / SENT
        self.sent, self._offset = _read_position(self._position)

    def has_more(self) -> bool:
        """Whether an entry waits: the file alone knows, since an interrupt may come between writing and counting."""
        try:
            return bool(self._next())
        except OSError:  # then sending is tried until that is known
            return True

    def send_next(self) -> bool:
        """Sends an entry. Returns whether there was one. Raises Transient or OSError where it may succeed later."""
        if not (line := self._next()):
            return False
        try:
            entry = _entry(line)
            if entry["kind"] not in self._unwanted:
                self._send(self._folder, entry)
        except Exception as error:
            if _is_worth_another_try(error):
                raise
            self.refused.append(" ".join(str(error).split()) or type(error).__name__)
            log.warning("not tracked: %s", self.refused[-1])
        self.sent, self._offset = self.sent + 1, self._offset + len(line)
        self._position.write_text(f"{self.sent} {self._offset}", encoding="ascii")
        return True

    def _next(self) -> bytes:
        with (self._folder / ENTRIES).open("rb") as file:
            file.seek(self._offset)
            line = file.readline()
        return line if line.endswith(b"\n") else b""  # nothing, or what a killed process was writing


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == SILENT_TRIES and state.outcome is not None and (error := state.outcome.exception()):
        log.warning("not tracked yet: %s; it is tried on", " ".join(str(error).split()))


def _is_worth_another_try(error: BaseException) -> bool:
    return isinstance(error, Transient | OSError)


def _read_position(path: Path) -> tuple[int, int]:
    try:
        sent, offset = map(int, path.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return 0, 0
    return sent, offset


def _entry(line: bytes) -> Entry:
    entry = json.loads(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise ValueError("an entry of the journal is no entry")
    return entry
