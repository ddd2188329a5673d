"""Names as hostile as file systems allow -> text that does no harm and still tells them apart."""

import csv
import io
import os

import pytest

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
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_in_one_line_that_can_be_encoded(name: str) -> None:
    shown = text.shown(name)
    assert len(shown.splitlines()) == 1 and shown.encode()
    assert not {"\x1b", "\x9b", "\u202e", "\t"} & {*shown}
    assert text.visible(shown) == shown


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_is_read_as_what_was_written_there(name: str) -> None:
    assert text.from_cell(text.cell(text.shown(name))) == text.shown(name)


def test_no_two_names_become_one() -> None:
    assert len({text.shown(name) for name in NAMES}) == len(NAMES)
    assert len({text.cell(text.shown(name)) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    "name", ["cat", "a cat.jpg", "émeu", "犬", "😀", "👩\u200d🔬", "می\u200cخواهم", "$dog", "a-b=c"]
)
def test_what_does_no_harm_stays_as_it_is(name: str) -> None:
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
def test_what_would_not_show_is_written_out(name: str, shown: str) -> None:
    assert text.shown(name) == shown


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_starts_a_formula_or_breaks_its_row(name: str) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow([text.cell(name), 1])
    assert written.getvalue().count("\n") == 1 and "\r" not in written.getvalue()
    (row,) = csv.reader(io.StringIO(written.getvalue()))
    assert row == [text.cell(name), "1"]
    assert row[0][0] not in "=+-@＝＋－＠\t\r\n"


@pytest.mark.parametrize("number", ["-0.5", "+1", "-1e-3", "-inf"])
def test_a_number_is_no_formula(number: str) -> None:
    assert text.cell(number) == number


def test_a_note_keeps_its_lines_and_marks_but_no_html() -> None:
    markdown = "**Training** of `a` — <script>alert(1)</script> & more\n\nsecond \x1b[31mparagraph"
    assert text.note(markdown) == (
        "**Training** of `a` — &lt;script&gt;alert(1)&lt;/script&gt; &amp; more\n\nsecond \\x1b[31mparagraph"
    )
