"""What lies in a journal as lines of JSON, each with a checksum of itself, so that no damage goes unseen."""

import json
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Entry = dict[str, Any]

SEALED = re.compile(rb'(.*), "check": "([0-9a-f]{8})"\}\s*', re.DOTALL)


class Damaged(ValueError):
    """What lies there is not what was written."""


def sealed(content: Mapping[str, Any]) -> str:
    """`content`, which is not empty, as one line of JSON that ends with a checksum of what is before it."""
    text = json.dumps(content)[:-1]
    return f'{text}, "check": "{zlib.crc32(text.encode()):08x}"}}'


def unsealed(line: bytes) -> dict[str, Any]:
    """The mapping that a line holds. Raises Damaged where that is not what was written.

    A line without a checksum is of an earlier version: of that one only the JSON can be checked.
    """
    found = SEALED.fullmatch(line)
    if found is not None and zlib.crc32(found[1]) != int(found[2], 16):
        raise Damaged("its checksum does not fit")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise Damaged("it is no JSON") from None
    if not isinstance(content, dict):
        raise Damaged("it is no mapping")
    return content


def entry_of(line: bytes) -> Entry:
    """The entry that a line holds. Raises Damaged where it holds none."""
    try:
        content = unsealed(line)
    except Damaged as error:
        raise Damaged(f"an entry of the journal is damaged: {error}") from None
    if not isinstance(content.get("kind"), str) or type(content.get("number", 0)) is not int:
        raise Damaged("an entry of the journal is no entry")
    return content


def end_last_line(path: Path) -> None:
    """Ends the last line of a file that nobody writes any more, where the entry is whole and its line end is not."""
    *_, last = path.read_bytes().rsplit(b"\n", 1)
    for whole in (last, last[:-1]):  # the line end is missing, or is another byte
        with suppress(Damaged):
            entry_of(whole)
            with path.open("r+b") as file:
                file.seek(-len(last), 2)
                file.truncate()
                file.write(whole + b"\n")
            return
