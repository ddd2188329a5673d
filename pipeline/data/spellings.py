"""Treats different Unicode spellings as one name: é may be one character, or e and an accent."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def normal(name: str) -> str:
    """`name` in the form that all its spellings share (NFC)."""
    return unicodedata.normalize("NFC", name)


def merged(names: Iterable[str]) -> dict[str, str]:
    """The `names` that occur in several spellings, mapped to their common form."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[normal(name)].add(name)
    return {name: form for form, found in spellings.items() if len(found) > 1 for name in found}


class Disk:
    """How the disk spells the names below a folder. macOS may spell names differently from tables of labels."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spellings = cache(self._read)

    def spelled(self, path: str) -> str:
        """`path` as the disk spells it. Unchanged if it exists, or if the disk does not have exactly one spelling."""
        if path.isascii() or os.path.lexists(self._root / path):
            return path
        found = ""
        for name in path.split("/"):
            names = self._spellings(found).get(normal(name), [])
            if len(names) != 1:
                return path
            found = os.path.join(found, names[0])  # noqa: PTH118 - a Path would become text again
        return found

    def _read(self, folder: str) -> dict[str, list[str]]:
        """The names in `folder` by their common form; empty if it cannot be read."""
        spellings: dict[str, list[str]] = defaultdict(list)
        try:
            for name in os.listdir(self._root / folder):  # noqa: PTH208 - needs only the names
                spellings[normal(name)].append(name)
        except OSError:
            return {}
        return spellings
