"""Sends the entries in a journal's folder one by one, and keeps a list of the refused ones."""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.tracking.entries import Damaged, Entry, entry_of, sealed, unsealed

log = logging.getLogger(__name__)

Send = Callable[[Path, Entry], None]  # (the journal's folder, entry); OSError and Transient mean: try again

ENTRIES, SENT, CLOSED, REFUSED = "entries.jsonl", "sent", "closed", "refused.jsonl"


class Transient(Exception):
    """Sending failed, but may succeed later; the message says why it failed."""


class Outbox:
    """Sends the entries of a journal's folder one by one, from the first that the store has not acknowledged.

    An entry that the store refuses, or that is damaged, is listed in the folder's refused.jsonl and skipped.
    """

    def __init__(self, folder: Path, send: Send, unwanted: Collection[str] = ()) -> None:
        self.refused: list[str] = []  # one reason for each entry that this process could not send
        self.num_sent = 0  # entries that this process has sent
        self._unwanted = unwanted
        self._folder = folder
        self._send = send
        self._number, self._offset = _position(folder)  # of the next entry

    def has_more(self) -> bool:
        """Whether an entry waits. Only the file knows: an interrupt may come between writing and counting."""
        try:
            return bool(self._next())
        except OSError:  # not known yet: `send_next` tries again until the file can be read
            return True

    def send_next(self) -> bool:
        """Sends the next entry. Returns whether there was one. Raises Transient or OSError if it may succeed later."""
        if not (line := self._next()):
            return False
        number, is_sent = self._number, False
        try:
            entry = entry_of(line)
            number = entry.get("number", number)
            if entry["kind"] not in self._unwanted:
                self._send(self._folder, entry)
            is_sent = True
        except Exception as error:
            if is_worth_another_try(error):
                raise
            self._refuse(" ".join(str(error).split()) or type(error).__name__, line)
        self.list_lost(number)
        self._go_to(number + 1, self._offset + len(line))
        self.num_sent += is_sent
        return True

    def list_lost(self, number: int) -> None:
        """Lists as refused the entries before `number` that are missing from the journal."""
        if (num_lost := number - self._number) > 0:
            self._refuse(f"{num_lost} entries of the journal are lost")

    def go_back(self) -> None:
        """Returns to the first entry that is listed as refused. It and all later entries are sent again, in order."""
        if listed := _listed(self._folder):
            self._go_to(*min((each["number"], each["offset"]) for each in listed))
            (self._folder / REFUSED).unlink()

    def _refuse(self, reason: str, line: bytes = b"") -> None:
        listed = {"number": self._number, "offset": self._offset, "reason": reason}
        with (self._folder / REFUSED).open("a", encoding="ascii") as file:
            file.write(sealed({**listed, "entry": line.decode(errors="replace")}) + "\n")
        self.refused.append(reason)
        log.warning("not tracked: %s; it is listed in %s", reason, self._folder / REFUSED)

    def _go_to(self, number: int, offset: int) -> None:
        self._number, self._offset = number, offset
        position = sealed({"number": number, "offset": offset})
        (self._folder / SENT).write_text(position, encoding="ascii")

    def _next(self) -> bytes:
        with (self._folder / ENTRIES).open("rb") as file:
            file.seek(self._offset)
            line = file.readline()
        return line if line.endswith(b"\n") else b""  # the end, or the unfinished line of a killed process


def is_worth_another_try(error: BaseException) -> bool:
    """Whether an entry that could not be sent may be accepted later."""
    return isinstance(error, Transient | OSError)


def refusals(folder: Path) -> list[str]:
    """The reason for each refused entry that a journal's folder lists."""
    return [each["reason"] for each in _listed(folder)]


def close(folder: Path, count: int) -> None:
    """Records that no process writes the journal any more, and how many entries it has."""
    (folder / CLOSED).write_text(sealed({"count": count}), encoding="ascii")


def count(folder: Path) -> int:
    """The number of entries that a closed journal had; 0 if that is not known."""
    with suppress(OSError, Damaged):
        return _number(unsealed((folder / CLOSED).read_bytes()), "count")
    return 0


def _listed(folder: Path) -> list[dict[str, Any]]:
    try:
        lines = (folder / REFUSED).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [_refusal(line) for line in lines if line]


def _refusal(line: bytes) -> dict[str, Any]:
    try:
        listed = unsealed(line)
        return {**{name: _number(listed, name) for name in ("number", "offset")}, "reason": str(listed["reason"])}
    except (Damaged, KeyError):
        return {"number": 0, "offset": 0, "reason": "the list of refused entries is damaged"}


def _position(folder: Path) -> tuple[int, int]:
    """(number, offset in bytes) of the next entry to send; (0, 0) if the folder does not record it."""
    try:
        written, entries = (folder / SENT).read_bytes(), (folder / ENTRIES).read_bytes()
    except FileNotFoundError:
        return 0, 0
    try:
        return _earlier_position(written, entries) if not written.startswith(b"{") else _sealed_position(written)
    except ValueError as error:
        log.warning("%s is damaged (%s): all entries are sent again", folder / SENT, error)
        return 0, 0


def _sealed_position(written: bytes) -> tuple[int, int]:
    position = unsealed(written)
    return _number(position, "number"), _number(position, "offset")


def _earlier_position(written: bytes, entries: bytes) -> tuple[int, int]:
    """The position that an earlier version wrote. Raises ValueError if no entry begins there."""
    number, offset = map(int, written.split())
    before = entries[:offset]
    if len(before) != offset or before.count(b"\n") != number or not before.endswith(b"\n" * (number > 0)):
        raise ValueError("no entry begins there")
    return number, offset


def _number(content: dict[str, Any], name: str) -> int:
    number = content.get(name)
    if type(number) is not int or number < 0:
        raise Damaged(f"its {name} is not a number from 0 up")
    return number
