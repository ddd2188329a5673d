"""Reads a table of labels and lists its files, before any image is opened."""

import csv
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from pipeline.data.cache import TRAIN
from pipeline.data.parts import part_of, photos
from pipeline.data.spellings import Disk, normal
from pipeline.data.tree import ImageFile, Listing
from pipeline.text import shown

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20  # of a table: more than a million images need
MAX_CHARACTERS = 255  # of a label: the limit of folder names
COLUMNS = ("path", "label", "split", "group")
NEEDED = COLUMNS[:2]


def read_labels(root: Path, table: str) -> Listing:
    """The files that the CSV file `table` lists, sorted by part and path. `table` is absolute or relative to `root`.

    The first line names the columns: path, relative to `root`; label; optionally split (train, valid or test) and
    group. Images of one group stay in one split. Other columns and rows of empty cells are ignored. A missing file is
    left out and named. Raises ValueError, with the line number, for a table that cannot be trusted: a row of another
    length, a path twice or outside `root`, a group in two splits. Errors never quote the line: the user may have named
    the wrong file, and others can read the errors.
    """
    if not os.path.isdir(root):  # noqa: PTH112 - a Path raises if it may not look
        raise ValueError(f"data_dir={root} is not a folder: give the one that the paths in labels={table} start from")
    listing, table_path = Listing(), root / os.path.expanduser(table)  # noqa: PTH111 - a Path raises if there is no such user
    disk, respelled = Disk(root), 0
    lines: dict[str, int] = {}
    groups: dict[str, tuple[int, str]] = {}
    for line, row in _rows(table_path):
        where = f"{_named(table_path)} line {line}"
        path = _path(row["path"], where)
        file = ImageFile(_part(row, where), disk.spelled(path), _label(row["label"], where))
        respelled += file.path != path
        if file.path in lines:
            raise ValueError(f"{where}: its path is in line {lines[file.path]} already")
        lines[file.path] = line
        if group := row.get("group", ""):
            part, spelling = groups.setdefault(normal(group), (file.part, group))
            if part != file.part:
                raise ValueError(f"{where}: its group is in another split too")
            listing.groups[file.path] = spelling
        listing.add(file, partial(_look, root, file.path))
    if not listing.files:
        first_reason = "".join(f" (the first: {reason})" for _, reason in listing.left_out[:1])
        raise ValueError(f"{_named(table_path)} lists no file that is in data_dir={root}{first_reason}")
    listing.train_folders = sorted({file.label for file in listing.files if file.part == TRAIN})
    if respelled:
        listing.remarks.append(
            f"{_named(table_path)} and the disk spell {photos(respelled)} in different Unicode forms: taken as the same"
        )
    listing.settle()
    return listing


def _look(root: Path, path: str) -> os.stat_result:
    try:
        return (root / path).stat()
    except FileNotFoundError as error:
        if "\\" in path:
            error.strerror = f"{error.strerror}: write / between folders"
        raise


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """(line number, stripped cells by column) for each row of the CSV file `path`."""
    name = _named(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe may block for ever
            raise ValueError(f"{name} is no file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{name} has more than {MAX_BYTES:,} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            lines = csv.reader(chain([first], file), delimiter=_delimiter(first), strict=True)
            columns = [cell.strip().lower() for cell in next(lines, [])]
            _check_columns(columns, name)
            for cells in lines:
                if not any(map(str.strip, cells)):  # spreadsheets leave empty rows at the end
                    continue
                if len(cells) != len(columns):
                    raise ValueError(f"{name} line {lines.line_num}: {len(cells)} cells, not {len(columns)}")
                yield lines.line_num, dict(zip(columns, map(str.strip, cells), strict=True))
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text: save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{name} line {lines.line_num}: not CSV ({error})") from None


def _delimiter(first_line: str) -> str:
    """A comma, or if `first_line` has none, a semicolon or a tab: spreadsheets write these if decimals have a comma."""
    return next((each for each in ",;\t" if each in first_line), ",")


def _check_columns(columns: list[str], name: str) -> None:
    if missing := [column for column in NEEDED if column not in columns]:
        raise ValueError(f"{name} has no column {' and '.join(missing)}: its first line must name the columns")
    if twice := [column for column in COLUMNS if columns.count(column) > 1]:
        raise ValueError(f"{name} has several columns {twice[0]}: leave one")
    if others := ", ".join(column for column in columns if column not in COLUMNS):
        log.info("%s: columns not used: %s", name, _short(others))


def _part(row: Mapping[str, str], where: str) -> int:
    if "split" not in row:
        return TRAIN
    part = part_of(row["split"])
    if part is None:
        raise ValueError(f"{where}: its split is none of train, valid, test")
    return part


def _path(text: str, where: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or "\0" in text:
        raise ValueError(f"{where}: its path names no file")
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: its path must be relative, and stay within data_dir")
    return str(path)


def _label(text: str, where: str) -> str:
    if not 0 < len(text) <= MAX_CHARACTERS:
        raise ValueError(f"{where}: its label has {len(text)} characters; it must have 1 to {MAX_CHARACTERS}")
    return text


def _named(path: Path) -> str:
    return f"labels={shown(str(path))}"


def _short(text: str) -> str:
    return shown(text) if len(text) <= MAX_CHARACTERS else f"{shown(text[:MAX_CHARACTERS])}…"
