"""What is to be tracked -> entries on this disk first, sent in their order by a thread of their own.

The training waits for neither network nor server. What waits, waits on disk, so memory stays as it is, and is gone from
there once it is acknowledged. An entry is sent twice when its answer was lost: who sends makes that harmless.
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
SILENT_TRIES = 5  # of an entry, some 8 s


left_behind: list[Path] = []  # journals that this process could not send to their end


class Journal:
    """The entries of one run from this process, sent while it goes on with its work.

    With `signs`, the run gets a sign of life from time to time.
    """

    def __init__(self, run_id: str, uri: str, send: Send, signs: bool = True) -> None:
        disk.state_folder()
        self.folder = disk.run_folder(run_id) / f"journal-{time.time_ns()}-{uuid.uuid4().hex[:8]}"
        self._header = sealed({"run_id": run_id, "uri": without_passwords(uri), **processes.this()})
        self._file = self._made()
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
        """What was sent and will never be taken, and why."""
        return self._outbox.refused

    def append(self, kind: str, **content: Any) -> None:
        """Adds an entry; it is on the disk when this returns. Raises OSError where the disk cannot take it."""
        content = all_without_passwords(content)
        with self._writing:
            entry = {"kind": kind, "at": int(time.time() * 1000), **content, "number": self._count}
            self._file.write(sealed(entry) + "\n")
            self._file.flush()
            self._count += 1  # after the entry: an interrupt between the two leaves one too many, and none too few
            self._put_back()
            sync(self.folder / ENTRIES)
        with self._changed:
            self._changed.notify_all()

    def file(self, name: str) -> Path:
        """Where to write a file that is to go with the next entry, which names it by `relative`."""
        with self._writing:
            self._put_back()
        path = self.folder / FILES / uuid.uuid4().hex[:12] / name
        path.parent.mkdir()
        return path

    def relative(self, path: Path) -> str:
        """How an entry names a file of the journal."""
        return path.relative_to(self.folder).as_posix()

    def flush(self, seconds: float) -> bool:
        """Waits until all is sent, at most so long. Returns whether it is."""
        with self._writing:
            self._put_back()
        with self._changed:
            return self._changed.wait_for(lambda: not self._outbox.has_more(), seconds)

    def close(self) -> bool:
        """Stops sending. Returns whether all was sent and taken; then nothing of the journal is left."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=1.0)
        with self._writing, suppress(FileNotFoundError):
            self._put_back()
        self._file.close()
        if self._outbox.has_more():
            outbox.close(self.folder, self._count)
            left_behind.append(self.folder)
            return False
        self._outbox.expect(self._count)
        if self.refused:
            outbox.close(self.folder, self._count)
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def _made(self) -> TextIO:
        """The file of entries, in a folder that holds what a journal needs."""
        (self.folder / FILES).mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / HEADER) as path:
            path.write_text(self._header, encoding="utf-8")
        return (self.folder / ENTRIES).open("a+", encoding="utf-8")

    def _put_back(self) -> None:
        """Writes what somebody has removed once more. Raises FileNotFoundError when that has happened first."""
        if (self.folder / ENTRIES).exists():
            return
        self._file.seek(0)  # of a file that is open, the system keeps the content
        content = self._file.read()
        self._file.close()
        self._file = self._made()
        self._file.write(content)
        self._file.flush()
        if not self._was_gone:
            self._was_gone = True
            raise FileNotFoundError(errno.ENOENT, "it was removed while the run went on", str(self.folder))

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
        """From a thread of its own, as one entry may take long: marks this disk and the run."""
        while not self._ended.wait(processes.SIGN_SECONDS):
            with suppress(Exception):  # the next one will do
                os.utime(self.folder / HEADER)
                if self._signs:
                    self._send(self.folder, {"kind": "tags", "values": processes.as_tags(processes.sign_of_life())})

    def _has_work(self) -> bool:
        return self._ended.is_set() or self._outbox.has_more()


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == SILENT_TRIES and state.outcome is not None and (error := state.outcome.exception()):
        log.warning("not tracked yet: %s; it is tried on", " ".join(str(error).split()))
