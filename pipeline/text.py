"""Makes text from outside (names of files and classes, messages) harmless for people and programs that read it."""

import html
import re
from collections.abc import Mapping
from typing import Any

# Control characters, which also start terminal commands; all kinds of line ends; marks that reverse the direction of
# the following text, so that "gpj.exe" reads "exe.jpg"; and bytes of a name that are not text (see `os.fsdecode`).
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# https://owasp.org/www-community/attacks/CSV_Injection. A spreadsheet with another separator than the comma also starts
# cells after that one. Apostrophes count as part of the formula, so that different texts stay different.
FORMULA = re.compile(r"""((?:^|[;,|])[\s"]*)('*[=+@＝＋－＠-])""")
WRITTEN_FORMULA = re.compile(r"""((?:^|[;,|])[\s"]*)'('*[=+@＝＋－＠-])""")

# The text between the user's name and the last @ before a URL's host. A password may contain @ or / itself. The second
# form, for passwords with a blank or a quotation mark, does not match a port.
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

OWN_LINK = re.compile(r"(?<!!)\[[^\[\]\n]*\]\(#/experiments/[\w/?=&;-]*\)")  # a link from `tracking.views`
# Characters that start a link, an image or HTML in Markdown. A browser shows `&#<number>;` as the character itself.
LIVE = re.compile(r"[\[\]<>@]|&(?!#\d+;)|:(?=//)|(?<=www)\.", re.I)
MARKS = re.compile(r"[\[\]<>@&`*~\\]|\b_|_\b|:(?=//)|(?<=www)\.", re.I)


def without_passwords(text: str) -> str:
    """`text` with *** in place of each password or token in a URL or after a name such as `password=`.

    All text that leaves this process goes through this function: terminal output, tags, parameters and text files of a
    run, and the journal.
    """
    if "://" in text:
        text = ALONE_IN_A_URL.sub(rf"\1{HIDDEN}@", IN_A_URL.sub(rf"\1{HIDDEN}@", text))
    return NAMED.sub(rf"\1{HIDDEN}", text)


def all_without_passwords(value: Any) -> Any:
    """Plain data, as in JSON, with every text in it `without_passwords`."""
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {name: all_without_passwords(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [all_without_passwords(each) for each in value]
    return value


def visible(text: str, keep: str = "") -> str:
    r"""`text` for people, without passwords. Invisible characters are escaped as in Python, such as \n.

    Characters in `keep` stay. The result can always be encoded, and a second call changes nothing.
    """
    return _in_one_line(without_passwords(text), keep)


def shown(name: str) -> str:
    """The name of a file or class in one line. Backslashes are doubled, so that different names stay different."""
    return _in_one_line(name.replace("\\", "\\\\"))


def original(name: str) -> str:
    """The name that `shown` has written as `name`."""
    return name.encode("latin-1", "backslashreplace").decode("unicode_escape")


def cell(text: str) -> str:
    """`text` for a CSV file that a spreadsheet may open: in one line, with an apostrophe before a formula.

    A formula may also start after one of the separators ; , and |. Numbers do not change.
    """
    line = _in_one_line(text)
    return line if _is_number(line) else FORMULA.sub(r"\1'\2", line)


def from_cell(written: str) -> str:
    """The text that `cell` has written as `written`."""
    return WRITTEN_FORMULA.sub(r"\1\2", written)


def unmarked(text: str) -> str:
    """`text` from outside for use in Markdown: its marks show literally, and it contains no link and no image."""
    return MARKS.sub(_as_number, text)


def note(markdown: str) -> str:
    """`markdown` for a description: without HTML, images, foreign links and invisible characters."""
    text = visible(markdown, keep="\n")
    ours = [*OWN_LINK.finditer(text)]
    starts, ends = [0, *(link.end() for link in ours)], [*(link.start() for link in ours), len(text)]
    others = [LIVE.sub(_as_text, text[start:end]) for start, end in zip(starts, ends, strict=True)]
    links = [*(html.escape(link[0], quote=False) for link in ours), ""]
    return "".join(part for pair in zip(others, links, strict=True) for part in pair)


def _in_one_line(text: str, keep: str = "") -> str:
    return INVISIBLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


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
