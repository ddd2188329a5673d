"""Text from elsewhere (names of files and classes, messages) made harmless where people and programs read it."""

import html
import re

# Control characters, which also start a terminal's commands; line ends of every kind; marks that turn the direction
# of what follows, so that "gpj.exe" reads "exe.jpg"; and bytes of a name that are no text, as `os.fsdecode` keeps them.
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# https://owasp.org/www-community/attacks/CSV_Injection; behind apostrophes too, so that no two texts become one.
FORMULA = re.compile("'*[=+@＝＋－＠-]")


def visible(text: str, keep: str = "") -> str:
    r"""`text` in one line that can be encoded: what would not show as itself is written as in Python, such as \n.

    Characters in `keep` stay. Doing it again changes nothing.
    """
    return UNSEEN.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def shown(name: str) -> str:
    """The name of a file or class as `visible` text; its backslashes are doubled, so that no two names become one."""
    return visible(name.replace("\\", "\\\\"))


def original(name: str) -> str:
    """The name that `shown` writes as `name`."""
    return name.encode("latin-1", "backslashreplace").decode("unicode_escape")


def cell(text: str) -> str:
    """`text` for a CSV file that a spreadsheet may open: one line, and an apostrophe before what starts a formula.

    Numbers stay as they are.
    """
    line = visible(text)
    return f"'{line}" if FORMULA.match(line) and not _is_number(line) else line


def from_cell(written: str) -> str:
    """The text that `cell` has written so."""
    return written[1:] if written.startswith("'") and FORMULA.match(written) else written


def note(markdown: str) -> str:
    """`markdown` with no HTML in it, and nothing unseen but line ends."""
    return html.escape(visible(markdown, keep="\n"), quote=False)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
