"""The lines of a journal: each is JSON with its own checksum, so that damage is always noticed."""

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
    """The content differs from what was written."""


def sealed(content: Mapping[str, Any]) -> str:
    """`content` as one line of JSON that ends with a checksum of the rest of the line. It must not be empty."""
    text = json.dumps(content)[:-1]
    return f'{text}, "check": "{zlib.crc32(text.encode()):08x}"}}'


def unsealed(line: bytes) -> dict[str, Any]:
    """The mapping in a line. Raises Damaged if the line differs from what was written.

    A line without a checksum comes from an earlier version. Only its JSON can be checked.
    """
    found = SEALED.fullmatch(line)
    if found is not None and zlib.crc32(found[1]) != int(found[2], 16):
        raise Damaged("its checksum is wrong")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        raise Damaged("it is not JSON") from None
    if not isinstance(content, dict):
        raise Damaged("it is not a mapping")
    return content


def entry_of(line: bytes) -> Entry:
    """The entry in a line. Raises Damaged if there is none."""
    try:
        content = unsealed(line)
    except Damaged as error:
        raise Damaged(f"an entry of the journal is damaged: {error}") from None
    if not isinstance(content.get("kind"), str) or type(content.get("number", 0)) is not int:
        raise Damaged("an entry of the journal has no kind or no valid number")
    return content


def end_last_line(path: Path) -> None:
    """Repairs the line end of the last line if its entry is complete. The file must no longer be in use."""
    *_, last = path.read_bytes().rsplit(b"\n", 1)
    for whole in (last, last[:-1]):  # the line end is missing, or is a wrong byte
        with suppress(Damaged):
            entry_of(whole)
            with path.open("r+b") as file:
                file.seek(-len(last), 2)
                file.truncate()
                file.write(whole + b"\n")
            return
