"""Tables for a terminal and for a pipe."""

import io

import pytest

from pipeline.progress.table import table

HEAD = ["run", "left"]


class Narrow(io.StringIO):
    """A fake terminal with the width in COLUMNS."""

    def isatty(self):
        return True


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    return Narrow()


def test_in_a_pipe_each_row_is_one_line_of_any_length():
    long = "word " * 100
    lines = table(HEAD, [[f"{long}\nand more", "1:20"], ["b", ""]], io.StringIO(), wraps="run").splitlines()
    assert len(lines) == 3
    assert lines[1].startswith(long.strip())
    assert lines[1].endswith("; and more  1:20")
    assert lines[2] == "b"


def test_on_a_terminal_one_column_wraps(narrow):
    lines = table(HEAD, [["some words that are long", "1:20 + 2 steps"]], narrow, wraps="run").splitlines()
    assert lines[0].split() == HEAD
    assert all(len(line) <= 24 for line in lines)
    assert "1:20 + 2 steps" in lines[1]
    assert len(lines) > 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]a[/red]", "[red]a[/red]"),
        ("[link=file:///etc/passwd]a", "[link=file:///etc/passwd]a"),
        (":smile:", ":smile:"),
        ("\x1b[31ma", "\\x1b[31ma"),
        ("a\tb\x07", "a\\tb\\x07"),
        ("gpj\u202egnp", "gpj\\u202egnp"),
    ],
)
def test_names_are_shown_literally(name, shown):
    assert table(HEAD, [[name, "x"]], io.StringIO(), wraps="run").splitlines()[1] == f"{shown}  x"


def test_wide_characters_keep_columns_apart():
    lines = table(HEAD, [["数字", "x"], ["abcd", "y"]], io.StringIO(), wraps="run").splitlines()
    assert lines[1:] == ["数字  x", "abcd  y"]
