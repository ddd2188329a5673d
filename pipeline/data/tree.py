"""Lists the files in a directory of class sub-folders, before any file is opened."""

import os
import stat
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipeline.data.cache import TRAIN
from pipeline.data.formats import SUFFIXES, UNREAD
from pipeline.data.parts import check_classes, listed, part_folders, part_of, photos
from pipeline.data.spellings import merged
from pipeline.text import shown

MLFLOW_FOLDERS = ("mlruns", "mlartifacts")  # MLflow creates them where it starts; they hold runs and pictures


class ImageFile(NamedTuple):
    """A file that may be an image."""

    part: int
    path: str  # relative to the root, with "/"
    label: str
    # Size, and times of the last changes of content and inode. Each version of a file has other values.
    stamp: tuple[int, int, int] = (0, 0, 0)


@dataclass
class Listing:
    """The content of a directory, before any file is opened."""

    files: list[ImageFile] = field(default_factory=list)
    train_folders: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)  # counts of unimportant files, by reason
    unread: Counter[str] = field(default_factory=Counter)  # counts of photos in unsupported formats, by what to do
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (path as shown, why)
    groups: dict[str, str] = field(default_factory=dict)  # path -> name of its group, which stays in one split
    columns: dict[str, dict[str, str]] = field(default_factory=dict)  # further column -> path -> its value, if any
    remarks: list[str] = field(default_factory=list)  # a line on each thing that was changed or ignored

    def add(self, file: ImageFile, look: Callable[[], os.stat_result]) -> None:
        """Adds `file`, or lists it as left out if it cannot be read. `look` returns its status on the disk."""
        try:
            status = look()
        except OSError as error:
            self.leave_out(file.path, error.strerror)
            return
        if reason := unusable(status):
            self.leave_out(file.path, reason)
        else:
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            self.files.append(file._replace(stamp=stamp))

    def leave_out(self, path: str, reason: object) -> None:
        """Lists a file or folder that cannot be used, with the reason."""
        self.left_out.append((shown(path), str(reason)))

    def settle(self) -> None:
        """Merges classes whose names are spellings of one name, and sorts the files by part and path."""
        one_form = merged({*self.train_folders, *(file.label for file in self.files)})
        if one_form:
            self.files = [file._replace(label=one_form.get(file.label, file.label)) for file in self.files]
            self.train_folders = [one_form.get(name, name) for name in self.train_folders]
            classes = ", ".join(shown(name) for name in sorted({*one_form.values()}))
            self.remarks.append(f"spelled in several Unicode forms, each taken as one class: {classes}")
        self.files.sort()


def scan(root: Path) -> Listing:
    """The files below `root`, sorted by part and path.

    Links are followed, except to a folder that was read already or lies above. Hidden files and files without an image
    suffix are only counted, because there may be thousands. Other files that cannot be used are named. MLflow's folders
    are skipped. Raises ValueError if `root` is not a folder, or not a tree of images.
    """
    if not os.path.isdir(root):  # noqa: PTH112 - a Path raises if it may not look
        raise ValueError(f"data_dir={root} is not a folder: give one that holds a sub-folder per class")
    listing = Listing()
    parts = _part_folders(root, listing)
    for part, prefix in parts or [(TRAIN, "")]:
        _scan_part(root, part, prefix, listing)
    if not listing.files and listing.unread:
        raise ValueError(f"data_dir={root} has no images but {in_words(listing.unread)}")
    if not listing.files:
        first = "".join(f" ({path}: {reason})" for path, reason in listing.left_out[:1])
        raise ValueError(
            f"data_dir={root} has no images{first}: expected <class>/<image> or train/<class>/<image> in it"
        )
    if not parts:
        check_classes(root, (file.path for file in listing.files))
    listing.settle()
    return listing


def scan_below(root: Path) -> Listing:
    """The files below the folder `root` at any depth, sorted by path, without labels. Treats files as `scan` does."""
    listing = Listing()
    _scan_class(root, "", TRAIN, "", listing, set())
    listing.files.sort()
    return listing


def in_words(counts: Mapping[str, int]) -> str:
    """`counts` in words, such as `2 hidden, 1,412 not an image`; empty if all are 0."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def unusable(status: os.stat_result) -> str:
    """Why a file with this status cannot be an image; empty if it can."""
    if not stat.S_ISREG(status.st_mode):  # opening a pipe may block for ever
        return "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
    return "" if status.st_size else "empty"


def train_classes(files: Sequence[ImageFile], root: Path) -> list[str]:
    """The sorted classes of the train files. Raises ValueError for fewer than two, or if another part has others."""
    classes = sorted({file.label for file in files if file.part == TRAIN})
    if stray := {file.label for file in files} - {*classes}:
        raise ValueError(f"data_dir={root}: no usable train image of {listed(stray, '')}, only of test or validation")
    if len(classes) < 2:
        raise ValueError(f"data_dir={root}: found one class ({shown(classes[0])}); a classifier needs two or more")
    return classes


def _part_folders(root: Path, listing: Listing) -> list[tuple[int, str]]:
    """(part, its folder relative to `root`); empty for a tree of class folders. Remarks on photos in other folders."""
    folders = [name for name in _folders(root, "") if name not in MLFLOW_FOLDERS]
    named = part_folders(folders)
    present: dict[int, str] = {}
    for name, part in named.items():
        if not _folders(root, name):
            continue
        if part in present:
            raise ValueError(f"data_dir={root} has {present[part]}/ and {name}/, which mean the same: keep one")
        present[part] = name
    if present and TRAIN not in present:
        found = "/, ".join(present.values())
        raise ValueError(f"data_dir={root} has {found}/ but no train/ with a sub-folder per class")
    if not present:
        return []
    if beside := [name for name in folders if name not in named and _holds_photos(root / name)]:
        listing.remarks.append(f"photos in {listed(beside)} are not used: these names mean no part of the set")
    return sorted((part, _innermost(root, name, part)) for name, part in named.items())


def _innermost(root: Path, name: str, part: int) -> str:
    """The folder of a part: `name`, or its only sub-folder if that means the same part, as in unpacked archives."""
    below = _folders(root, name)
    is_again = len(below) == 1 and (below[0] == name or part_of(below[0]) == part)
    return f"{name}/{below[0]}" if is_again else name


def _holds_photos(folder: Path) -> bool:
    found = (name.lower() for _, _, names in os.walk(folder) for name in names)
    return any(name.endswith(SUFFIXES) and not name.startswith(".") for name in found)


def _scan_part(root: Path, part: int, prefix: str, listing: Listing) -> None:
    """Adds the files in the class folders below `prefix`, the folder of a part. Remarks on photos outside them."""
    above = {_identity(root.stat()), _identity((root / prefix).stat())}
    outside = 0
    for path, entry in _entries(root, prefix, listing):
        if entry.name in MLFLOW_FOLDERS:
            listing.skipped["MLflow's own"] += 1
        elif entry.is_dir():
            if part == TRAIN:
                listing.train_folders.append(entry.name)
            _scan_class(root, path, part, entry.name, listing, above.copy())
        elif not _count_unread(entry, listing):
            listing.skipped["outside a class folder"] += 1
            outside += entry.name.lower().endswith(SUFFIXES)
    if outside:
        where = f"{shown(prefix)}/" if prefix else "data_dir"
        listing.remarks.append(f"{where} holds {photos(outside)} without class folders: not used")


def _folders(root: Path, name: str) -> list[str]:
    """The names of the folders in the folder `name` of `root`."""
    return [entry.name for _, entry in _entries(root, name, Listing()) if entry.is_dir()]


def _scan_class(root: Path, path: str, part: int, label: str, listing: Listing, seen: set[tuple[int, int]]) -> None:
    """Adds the files below the class folder `path`. Reads each real folder once and skips `seen`: link cycles end."""
    folders = deque([path])
    while folders:
        folder = folders.popleft()
        try:
            identity = _identity((root / folder).stat())
        except OSError as error:
            listing.leave_out(folder, error.strerror)
            continue
        if identity in seen:
            listing.leave_out(folder, "a link to a folder that is read already, or lies above")
            continue
        seen.add(identity)
        for child, entry in _entries(root, folder, listing):
            if entry.name in MLFLOW_FOLDERS:
                listing.skipped["MLflow's own"] += 1
            elif not entry.is_dir():
                _add_file(entry, ImageFile(part, child, label), listing)
            elif entry.is_symlink():  # last, so that paths use a folder's own name, not the name of a link
                folders.append(child)
            else:
                folders.appendleft(child)


def _add_file(entry: os.DirEntry[str], file: ImageFile, listing: Listing) -> None:
    if entry.name.lower().endswith(SUFFIXES):
        listing.add(file, entry.stat)
    elif not _count_unread(entry, listing):
        listing.skipped["not an image"] += 1


def _count_unread(entry: os.DirEntry[str], listing: Listing) -> bool:
    """Counts the entry if it is a photo in an unsupported format. Returns whether it is one."""
    name = entry.name.lower()
    if is_unread := name.endswith(UNREAD):
        listing.unread[f".{name.rpartition('.')[2]} (not read: convert them to JPEG)"] += 1
    return is_unread


def _entries(root: Path, folder: str, listing: Listing) -> list[tuple[str, os.DirEntry[str]]]:
    """(path relative to `root`, entry) of each visible entry in `folder`, sorted by name, without broken links."""
    try:
        with os.scandir(root / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        listing.leave_out(folder or ".", error.strerror)
        return []
    visible = [entry for entry in found if not entry.name.startswith(".")]
    listing.skipped["hidden"] += len(found) - len(visible)
    paths = [f"{folder}/{entry.name}" if folder else entry.name for entry in visible]
    return [each for each in zip(paths, visible, strict=True) if _leads_somewhere(*each, listing)]


def _leads_somewhere(path: str, entry: os.DirEntry[str], listing: Listing) -> bool:
    """False for a link to nowhere or to itself. Lists it: it may be a whole class on a disk that is not mounted."""
    try:
        if entry.is_symlink():
            entry.stat()
    except OSError as error:
        listing.leave_out(path, error.strerror)
        return False
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
