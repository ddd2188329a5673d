"""Names of classes that may mean one class: the same but for case, blanks or the form in which Unicode writes them."""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from pipeline.text import original


def alike(classes: Sequence[str]) -> list[list[str]]:
    """The groups of two or more of `classes`, as `shown` writes them, that only such differences tell apart."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[_plain(original(name))].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _plain(name: str) -> str:
    """`name` in its compatible form (NFKC), in lower case, without blanks and marks that take no room."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(each for each in folded if not each.isspace() and unicodedata.category(each) != "Cf")
