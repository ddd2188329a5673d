"""Text from elsewhere (names of files and classes, messages) made harmless where people and programs read it."""

import html
import re
from collections.abc import Mapping
from typing import Any

# Control characters, which also start a terminal's commands; line ends of every kind; marks that turn the direction
# of what follows, so that "gpj.exe" reads "exe.jpg"; and bytes of a name that are no text, as `os.fsdecode` keeps them.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# https://owasp.org/www-community/attacks/CSV_Injection. Spreadsheets that take another separator than ours begin a cell
# behind it too. Apostrophes count as part of the formula, so that no two texts become one.
FORMULA = re.compile(r"""((?:^|[;,|])[\s"]*)('*[=+@＝＋－＠-])""")
WRITTEN_FORMULA = re.compile(r"""((?:^|[;,|])[\s"]*)'('*[=+@＝＋－＠-])""")

# What stands between the user's name and the last @ of a URL's host, where a password may hold an @ or a / itself.
# One with a blank or a quotation mark is looked for last: what looks like a port then is none.
IN_A_URL = re.compile(
    r"""(\b[a-z][\w+.-]*://[^\s:/@?#]*:)"""
    r"""(?:[^@\s"<>]{1,500}@|(?!\d*(?:[/?#\s:;,.)'"\]]|$))[^@\n]{1,200}@)([^@\s/?#"<>]{1,500}@)*""",
    re.I,
)
ALONE_IN_A_URL = re.compile(r"(\bhttps?://)[^\s:/@?#\"<>]+@", re.I)  # a token without a user's name
NAMED = re.compile(
    r"""(\b[\w.-]{0,64}(?:pass|password|passwd|passphrase|pwd|secret|token|signature|credential|api_?key|access_?key|\bsig)"""
    r"""(?:=|%3D))('[^']*'|"[^"]*"|(?:(?!%3B|%26)[^\s&;,'")}\]<>])+)""",
    re.I,
)
HIDDEN = "***"

OWN_LINK = re.compile(r"(?<!!)\[[^\[\]\n]*\]\(#/experiments/[\w/?=&;-]*\)")  # what `tracking.views` links to
# What Markdown makes a link, an image or HTML of; a browser shows the number of a character as the character.
LIVE = re.compile(r"[\[\]<>@]|&(?!#\d+;)|:(?=//)|(?<=www)\.", re.I)
MARKS = re.compile(r"[\[\]<>@&`*~\\]|\b_|_\b|:(?=//)|(?<=www)\.", re.I)


def without_passwords(text: str) -> str:
    """`text` with *** for each password and token of a URL in it, or behind a name such as `password=`.

    Whatever leaves this process passes here: the terminal, tags, parameters and text files of a run, the journal.
    """
    if "://" in text:
        text = ALONE_IN_A_URL.sub(rf"\1{HIDDEN}@", IN_A_URL.sub(rf"\1{HIDDEN}@", text))
    return NAMED.sub(rf"\1{HIDDEN}", text)


def all_without_passwords(value: Any) -> Any:
    """Plain data, as JSON can hold it, each text in it `without_passwords`."""
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {name: all_without_passwords(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [all_without_passwords(each) for each in value]
    return value


def visible(text: str, keep: str = "") -> str:
    r"""`text` for people: no password, and what would not show as itself is written as in Python, such as \n.

    Characters in `keep` stay. It can be encoded, and doing it again changes nothing.
    """
    return _in_one_line(without_passwords(text), keep)


def shown(name: str) -> str:
    """The name of a file or class in one line; its backslashes are doubled, so that no two names become one."""
    return _in_one_line(name.replace("\\", "\\\\"))


def original(name: str) -> str:
    """The name that `shown` writes as `name`."""
    return name.encode("latin-1", "backslashreplace").decode("unicode_escape")


def cell(text: str) -> str:
    """`text` for a CSV file that a spreadsheet may open: one line, and an apostrophe before what starts a formula.

    That may be behind any of the separators ; , and |. Numbers stay as they are.
    """
    line = _in_one_line(text)
    return line if _is_number(line) else FORMULA.sub(r"\1'\2", line)


def from_cell(written: str) -> str:
    """The text that `cell` has written so."""
    return WRITTEN_FORMULA.sub(r"\1\2", written)


def unmarked(text: str) -> str:
    """`text` from elsewhere within Markdown: its marks show as themselves, and nothing in it is a link or an image."""
    return MARKS.sub(_as_number, text)


def note(markdown: str) -> str:
    """`markdown` for a description: no HTML, no image, no link but ours to other runs, nothing unseen but line ends."""
    text = visible(markdown, keep="\n")
    ours = [*OWN_LINK.finditer(text)]
    starts, ends = [0, *(link.end() for link in ours)], [*(link.start() for link in ours), len(text)]
    others = [LIVE.sub(_as_text, text[start:end]) for start, end in zip(starts, ends, strict=True)]
    links = [*(html.escape(link[0], quote=False) for link in ours), ""]
    return "".join(part for pair in zip(others, links, strict=True) for part in pair)


def _in_one_line(text: str, keep: str = "") -> str:
    return UNSEEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _as_number(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"


def _as_text(found: re.Match[str]) -> str:
    return html.escape(found[0], quote=False) if found[0] in "<>&" else _as_number(found)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
