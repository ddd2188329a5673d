"""Recognises by their names the folders that hold the parts of an image set: train, validation and test."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pipeline.data.cache import TEST, TRAIN, VALID
from pipeline.text import shown

WORDS = {
    TRAIN: "train|training",
    VALID: "val|valid|validation|validate|dev|devel|development",
    TEST: "test|testing",
}
# Words that add no meaning to the name of a folder of images: `train` and `Training_Set-2` mean the same.
FILLERS = "data|sets?|subset|split|part|images?|imgs?|photos?|pictures?|pics?|samples?|examples?|files?|folder|dir"
PART_WORD = {part: re.compile(f"(?:{FILLERS})*(?:{words})(?:{FILLERS})*") for part, words in WORDS.items()}
FILLER_WORD = re.compile(f"(?:{FILLERS})+")
CAPITAL_WITHIN = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")
WORD = re.compile(r"[^\W\d_]+")
MAX_NAMED = 5  # folders or classes in a message
EXPECTED = "expected train/<class>/<image>, or a table that lists the images (labels=FILE)"


def part_of(name: str) -> int | None:
    """The part that `name` stands for, such as `train` or `Test-Images`; None if it has other words or no such word."""
    part, rest = _part_and_rest(name)
    return None if rest else part


def part_folders(names: Sequence[str]) -> dict[str, int]:
    """The folders among `names` that are parts, and which part each is.

    Such a name stands for a part, or the names differ only in the word for the part, for example seg_train and
    seg_test.
    """
    groups = _groups(names)
    alone = groups.pop((), {})
    others = [group for group in groups.values() if TRAIN in group.values() and len({*group.values()}) > 1]
    return others[0] if len(others) == 1 and TRAIN not in alone.values() else alone


def check_classes(root: Path, paths: Iterable[str]) -> None:
    """Raises ValueError if the first folders of `paths` look like parts of the set, not like classes.

    paths: of images, relative to `root`.
    """
    counts, below = Counter[str](), defaultdict[str, set[str]](set)
    for folder, count in Counter(path.rpartition("/")[0] for path in paths).items():
        first, *rest = folder.split("/")
        counts[first] += count
        below[first].update(rest[:1])
    common = set.intersection(*below.values())
    if len(below) == 1 and TRAIN in part_folders([*common]).values():
        raise ValueError(
            f"data_dir={root}: the parts are one folder further down: give data_dir={root.joinpath(*below)}"
        )
    if len(below) > 1 and len(common) > 1:
        raise ValueError(
            f"data_dir={root}: {listed(below)} all hold the folders {listed(common)}, so it is not clear which of "
            f"them are classes: {EXPECTED}"
        )
    if parts := [name for group in _groups([*below]).values() if len({*group.values()}) > 1 for name in group]:
        seen = " and ".join(f"{shown(name)}/ holds {photos(counts[name])}" for name in parts[:MAX_NAMED])
        raise ValueError(f"data_dir={root}: {seen}, without class folders: {EXPECTED}")


def photos(count: int) -> str:
    """The text for `count` photos, such as `1 photo` or `1,412 photos`."""
    return f"{count:,} photo{'' if count == 1 else 's'}"


def listed(names: Collection[str], ending: str = "/") -> str:
    """A text that lists folders or classes: the first few `names`, each with its `ending`, and how many more."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(f"{shown(name)}{ending}" for name in sorted(names)[:MAX_NAMED]) + more


def _groups(names: Sequence[str]) -> dict[tuple[str, ...], dict[str, int]]:
    """The names that stand for a part, with that part, grouped by the other words of the name."""
    groups: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for name in names:
        part, rest = _part_and_rest(name)
        if part is not None:
            groups[rest][name] = part
    return groups


def _part_and_rest(name: str) -> tuple[int | None, tuple[str, ...]]:
    """The part that one word of `name` stands for, and its other words. None if no word does, or several words do."""
    words = [word.lower() for word in WORD.findall(CAPITAL_WITHIN.sub(" ", name))]
    meant = {word: part for word in words for part, pattern in PART_WORD.items() if pattern.fullmatch(word)}
    if len(meant) != 1:
        return None, tuple(words)
    ((said, part),) = meant.items()
    return part, tuple(word for word in words if word != said and not FILLER_WORD.fullmatch(word))
