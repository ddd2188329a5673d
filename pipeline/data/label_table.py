"""Reads a table of labels and lists its files, before any image is opened."""

import csv
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath

from pipeline.data import label_studio
from pipeline.data.cache import TRAIN
from pipeline.data.parts import part_of, photos
from pipeline.data.spellings import Disk, normal
from pipeline.data.tree import ImageFile, Listing
from pipeline.text import from_cell, original, shown

log = logging.getLogger(__name__)

MAX_BYTES = 256 * 2**20  # of a table: more than a million images need
MAX_CHARACTERS = 255  # of a label: the limit of folder names
COLUMNS = ("path", "label", "split", "group", "exclude")
NEEDED = COLUMNS[:2]
OTHER_NAME = {"file": "path"}  # the doctor's name for a column
OF_THE_DOCTOR = "suggested_label"  # a column of the doctor's table; it writes names as `shown` and `cell` do
EXCLUDED = {"1": True, "true": True, "yes": True, "": False, "0": False, "false": False, "no": False}


def read_labels(root: Path, table: str) -> Listing:
    """The files that `table` lists, sorted by part and path. `table` is absolute or relative to `root`.

    It is Label Studio's JSON export, or a CSV file. The first line of a CSV file names the columns: path (or file),
    relative to `root`; label; optionally split (train, valid or test), group and exclude (1, true or yes leaves a file
    out). Images of one group stay in one split. Rows of empty cells are ignored. A missing file is left out and named.
    Raises ValueError, with the line number, for a table that cannot be trusted: a row of another length, a path twice
    or outside `root`, a group in two splits. Errors never quote the line: the user may have named the wrong file,
    and others can read the errors.
    """
    if not os.path.isdir(root):  # noqa: PTH112 - a Path raises if it may not look
        raise ValueError(f"data_dir={root} is not a folder: give the one that the paths in labels={table} start from")
    listing, table_path = Listing(), root / os.path.expanduser(table)  # noqa: PTH111 - a Path raises if there is no such user
    disk, respelled = Disk(root), 0
    places: dict[str, str] = {}
    groups: dict[str, tuple[int, str]] = {}
    excluded = 0
    for place, row in _rows(table_path):
        where = f"{_named(table_path)} {place}"
        path = _path(row["path"], where)
        spelled = disk.spelled(path)
        respelled += spelled != path
        if spelled in places:
            raise ValueError(f"{where}: its path is in {places[spelled]} already")
        places[spelled] = place
        if _is_excluded(row, where):
            excluded += 1
            continue
        file = ImageFile(_part(row, where), spelled, _label(row["label"], where))
        if group := row.get("group", ""):
            part, spelling = groups.setdefault(normal(group), (file.part, group))
            if part != file.part:
                raise ValueError(f"{where}: its group is in another split too")
            listing.groups[file.path] = spelling
        for column, cell in row.items():
            if column and column not in COLUMNS and OF_THE_DOCTOR not in row:
                listing.columns.setdefault(column, {})[file.path] = cell
        listing.add(file, partial(_look, root, file.path))
    if not listing.files:
        first_reason = "".join(f" (the first: {reason})" for _, reason in listing.left_out[:1])
        raise ValueError(f"{_named(table_path)} lists no file that is in data_dir={root}{first_reason}")
    listing.train_folders = sorted({file.label for file in listing.files if file.part == TRAIN})
    if respelled:
        listing.remarks.append(
            f"{_named(table_path)} and the disk spell {photos(respelled)} in different Unicode forms: taken as the same"
        )
    if excluded:
        log.info("%s excludes %s", _named(table_path), photos(excluded))
    listing.settle()
    return listing


def _look(root: Path, path: str) -> os.stat_result:
    try:
        return (root / path).stat()
    except FileNotFoundError as error:
        if "\\" in path:
            error.strerror = f"{error.strerror}: write / between folders"
        raise


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(its place, stripped cells by column) for each row of the table at `path`."""
    name = _named(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe may block for ever
            raise ValueError(f"{name} is not a file")
        if status.st_size > MAX_BYTES:
            raise ValueError(f"{name} has more than {MAX_BYTES:,} bytes")
        if path.suffix.lower() == ".json":
            for place, row in label_studio.rows(path.read_bytes(), name):
                yield place, _with_disk_names(row, f"{name} {place}")
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            lines = csv.reader(chain([first], file), delimiter=_delimiter(first), strict=True)
            columns = [cell.strip().lower() for cell in next(lines, [])]
            if "path" not in columns:
                columns = [OTHER_NAME.get(column, column) for column in columns]
            is_doctors = OF_THE_DOCTOR in columns
            _check_columns(columns, name)
            for cells in lines:
                if not any(map(str.strip, cells)):  # spreadsheets leave empty rows at the end
                    continue
                if len(cells) != len(columns):
                    raise ValueError(f"{name} line {lines.line_num}: {len(cells)} cells, not {len(columns)}")
                row = dict(zip(columns, map(str.strip, cells), strict=True))
                if is_doctors:
                    row = _with_disk_names(row, f"{name} line {lines.line_num}", from_cell)
                yield f"line {lines.line_num}", row
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text: save it as CSV UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{name} line {lines.line_num}: not CSV ({error})") from None


def _with_disk_names(
    row: Mapping[str, str], where: str, unescaped: Callable[[str], str] = lambda text: text
) -> dict[str, str]:
    """A row that the doctor has written, with its names as the disk has them."""
    try:
        return {**row, **{column: original(unescaped(row[column])) for column in NEEDED}}
    except UnicodeDecodeError:
        raise ValueError(f"{where}: a backslash in its path or label must be doubled") from None


def _delimiter(first_line: str) -> str:
    """A comma, or if `first_line` has none, a semicolon or a tab: spreadsheets write these if decimals have a comma."""
    return next((each for each in ",;\t" if each in first_line), ",")


def _check_columns(columns: list[str], name: str) -> None:
    if missing := [column for column in NEEDED if column not in columns]:
        raise ValueError(f"{name} has no column {' and '.join(missing)}: its first line must name the columns")
    if twice := [column for column in COLUMNS if columns.count(column) > 1]:
        raise ValueError(f"{name} has several columns {twice[0]}: keep one")
    others = ", ".join(column for column in columns if column not in COLUMNS)
    if others and OF_THE_DOCTOR not in columns:
        log.info("%s: evaluate also measures slices by these columns: %s", name, _short(others))


def _part(row: Mapping[str, str], where: str) -> int:
    if "split" not in row:
        return TRAIN
    part = part_of(row["split"])
    if part is None:
        raise ValueError(f"{where}: its split is none of train, valid, test")
    return part


def _is_excluded(row: Mapping[str, str], where: str) -> bool:
    excluded = EXCLUDED.get(row.get("exclude", "").lower())
    if excluded is None:
        raise ValueError(f"{where}: its exclude is none of 1, true, yes, and 0, false, no or empty")
    return excluded


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
