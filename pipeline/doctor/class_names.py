"""Finds class names that may mean the same class: they differ only in case, blanks or Unicode form."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from pipeline.text import original


def alike(classes: Sequence[str]) -> list[list[str]]:
    """Groups of two or more names that differ only in these ways. `classes`: names as `shown` writes them."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[_plain(original(name))].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    """`name` in its compatible form (NFKC), in lower case, without blanks and invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(each for each in folded if not each.isspace() and unicodedata.category(each) != "Cf")
