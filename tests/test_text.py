"""Names as hostile as file systems allow become harmless text, and different names stay different."""

import csv
import html
import io
import os
import re

import pytest
from markdown_it import MarkdownIt

from pipeline import text

NAMES = [
    "=1+1",
    "'=1+1",
    "''=1+1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "＝1",
    "\t=1",
    "\r=1",
    "\n=1",
    "\\n=1",
    "\\\\n=1",
    "'quoted'",
    'double"quoted',
    "a,b;c",
    "\x1b[31mred",
    "\x9b31mred",
    "\u202egnp.exe",
    "two\nlines",
    "two\r\nlines",
    "two\u2028lines",
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "$x_{",
    "😀",
    "👩\u200d🔬",
    "می\u200cخواهم",
    "é",
    os.fsdecode(b"\xff\xfe"),
    "x" * 255,
    " ",
    "x;=HYPERLINK(A1);y",
    "x;'=1;\"=2;\t+3",
    "a,-b|@c; ＝d",
    "a; '=1",
    "x;\t'=1",
]
LIKE_A_URL = "postgresql://me:word@host"  # a folder may have this name, which has no password


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_in_one_line_that_can_be_encoded(name: str) -> None:
    shown = text.shown(name)
    assert len(shown.splitlines()) == 1 and shown.encode()
    assert not {"\x1b", "\x9b", "\u202e", "\t"} & {*shown}
    assert text.visible(shown) == shown


@pytest.mark.parametrize("name", [*NAMES, LIKE_A_URL])
def test_a_cell_is_read_back_as_the_text_that_was_written(name: str) -> None:
    assert text.from_cell(text.cell(text.shown(name))) == text.shown(name)


def test_different_names_stay_different() -> None:
    assert len({text.shown(name) for name in NAMES}) == len(NAMES)
    assert len({text.cell(text.shown(name)) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    "name", ["cat", "a cat.jpg", "émeu", "犬", "😀", "👩\u200d🔬", "می\u200cخواهم", "$dog", "a-b=c"]
)
def test_harmless_text_is_not_changed(name: str) -> None:
    assert text.shown(name) == text.cell(name) == text.note(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\\nb", r"a\\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202egpj", r"\u202egpj"),
        (os.fsdecode(b"\xff"), r"\udcff"),
    ],
)
def test_invisible_characters_are_escaped(name: str, shown: str) -> None:
    assert text.shown(name) == shown


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_starts_a_formula_or_breaks_its_row(name: str) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow([text.cell(name), 1])
    assert written.getvalue().count("\n") == 1 and "\r" not in written.getvalue()
    (row,) = csv.reader(io.StringIO(written.getvalue()))
    assert row == [text.cell(name), "1"]
    assert row[0][0] not in "=+-@＝＋－＠\t\r\n"


@pytest.mark.parametrize("separator", [";", ",", "|", "\t"])
@pytest.mark.parametrize("formula", ["=HYPERLINK(A1)", "+1", "-1+A1", "@SUM(A1)", "＝1", '"=1"', " =1", "'=1"])
def test_no_formula_starts_after_any_separator_of_a_spreadsheet(separator: str, formula: str) -> None:
    written = text.cell(f"x{separator}{formula}{separator}y")
    for part in written.split(separator):
        assert part.strip(' "')[0] not in "=+-@＝＋－＠"


@pytest.mark.parametrize("number", ["-0.5", "+1", "-1e-3", "-inf"])
def test_a_number_is_not_a_formula(number: str) -> None:
    assert text.cell(number) == number


def test_a_note_keeps_its_lines_and_marks_but_no_html() -> None:
    markdown = "**Training** of `a` — <script>alert(1)</script> & more\n\nsecond \x1b[31mparagraph"
    assert text.note(markdown) == (
        "**Training** of `a` — &lt;script&gt;alert(1)&lt;/script&gt; &amp; more\n\nsecond \\x1b&#91;31mparagraph"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:secret@host:5432/db",
        "postgresql://user:sec/secret@host/db",
        "postgresql://user:p@secret@host/db",
        "postgresql://user:my secret@host/db",
        'postgresql://user:a"secret@host/db',
        "postgresql://user:5432secret@host/db",
        "postgresql://:secret@host/db",
        "https://user:secret@host/of/us?a=1",
        "https://secret@host/of/us",
        "HTTPS://User:secret@Host",
        "postgresql://host/db?user=me&password=secret",
        "postgresql://host/db?sslpassword=secret&user=me",
        "https://host/container?sv=2&sig=secret",
        "https://host/bucket?X-Amz-Signature=secret&X-Amz-Security-Token=secret",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BUID%3Dme%3BPWD%3Dsecret%3BSERVER%3Dh",
        "host=h user=me password='a secret' dbname=d",
    ],
)
@pytest.mark.parametrize(
    "around", ["{}", "(raised by {}, again)", "'{}'", '{{"uri": "{}", "next": "x@y"}}', "a\n{}\nb"]
)
def test_a_password_is_hidden_in_any_text(url: str, around: str) -> None:
    hidden = text.visible(around.format(url), keep="\n")
    assert "secret" not in hidden
    assert text.HIDDEN in hidden
    assert text.visible(hidden, keep="\n") == hidden
    assert "secret" not in text.note(around.format(url))
    assert "secret" not in repr(text.all_without_passwords({"a": [around.format(url), 1], "b": (None, {"c": url})}))


@pytest.mark.parametrize(
    "line",
    [
        "tracking store http://127.0.0.1:5000: no answer; write to me@home",
        "sqlite:////kept@home/mlruns",
        "mysql://root@localhost/runs",
        "runs:/0123/model of models:/m-1",
        "#/experiments/0/runs?workflowType=machine_learning&viewStateShareKey=results",
        "http://127.0.0.1:5000/a and http://b:80",
        "give --password_file, or a password: it is asked for",
        "num_tokens=64, passes=3",
    ],
)
def test_text_without_a_password_is_not_changed(line: str) -> None:
    assert text.visible(line) == line


MARKDOWN = MarkdownIt("commonmark", {"html": True})
OURS = "[Training](#/experiments/0/runs/0123456789abcdef?workflowType=machine_learning)"


@pytest.mark.parametrize(
    "name",
    [
        "![x](http://host/pixel.png)",
        "[sign in](http://host)",
        "[sign in][1]\n\n[1]: http://host",
        "![x][1]\n[1]: //host/pixel.png",
        "<http://host>",
        "http://host/a.b",
        "www.host.net",
        "me@host.net",
        "<img src=x>",
        "&lt;img src=x&gt;",
        "[a](#/experiments/0/runs/1)",
        "](http://host) [",
        f"[{OURS}](http://host)",
        "!",
    ],
)
def test_names_in_a_note_become_no_links_or_images_but_our_own_links_stay(name: str) -> None:
    for written in (text.note(f"**A** — {text.unmarked(name)}\n\n{OURS}"), text.note(f"**A** — {name} {OURS}")):
        rendered = MARKDOWN.render(written)
        links, images = re.findall('href="([^"]*)', rendered), rendered.count("<img")
        assert not images
        assert all(link.startswith("#/experiments/0/runs/") for link in links)
        assert links
        # Some renderers turn these into links without brackets.
        assert not re.search(r"://|www\.|@", written.replace(OURS, ""))
    escaped = MARKDOWN.render(text.note(text.unmarked(name)))
    assert "<a" not in escaped and "<img" not in escaped
    assert " ".join(html.unescape(re.sub("<[^>]*>", "", escaped)).split()) == " ".join(name.split())
