"""Names that Unicode spells in two ways, such as é as one character or as e and an accent: taken as one name."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def normal(name: str) -> str:
    """The one form of all spellings of `name` (NFC)."""
    return unicodedata.normalize("NFC", name)


def merged(names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that are there in several spellings -> their one form."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[normal(name)].add(name)
    return {name: form for form, found in spellings.items() if len(found) > 1 for name in found}


class Disk:
    """How the names below a folder are spelled on the disk: macOS writes names another way than tables of labels do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._spellings = cache(self._read)

    def spelled(self, path: str) -> str:
        """`path` as the disk spells it; unchanged where it is there, or where not just one other spelling is."""
        if path.isascii() or os.path.lexists(self._root / path):
            return path
        found = ""
        for name in path.split("/"):
            names = self._spellings(found).get(normal(name), [])
            if len(names) != 1:
                return path
            found = os.path.join(found, names[0])  # noqa: PTH118 - a Path would be text again
        return found

    def _read(self, folder: str) -> dict[str, list[str]]:
        """The names in `folder` by their one form; none where it cannot be read."""
        spellings: dict[str, list[str]] = defaultdict(list)
        try:
            for name in os.listdir(self._root / folder):  # noqa: PTH208 - names alone
                spellings[normal(name)].append(name)
        except OSError:
            return {}
        return spellings
