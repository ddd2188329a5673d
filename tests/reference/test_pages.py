"""The pages that come from the code are complete: a missing description is an error. The site has no faults."""

import pytest
from pydantic import Field

from pipeline.params import COMMANDS, Params
from reference import logged, parameters, site, steps
from reference.__main__ import main


def test_each_parameter_of_each_command_is_on_the_page_with_its_meaning():
    entries = parameters.page().split("\n### ")
    for command, params in COMMANDS.items():
        for name, field in params.model_fields.items():
            begin = f"{name}\n\n{field.description.translate(parameters.PLAIN)}\n\n- Values: "
            assert any(entry.startswith(begin) for entry in entries), (command, name)
    (epochs,) = (entry for entry in entries if entry.startswith("epochs\n"))
    assert "- Values: whole number, 1 to 100,000\n- Default: `12`" in epochs


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 0}, "whole number, at least 0"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number, above 0, at most 1"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number, at least 0, below 1"),
        ({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}, "whole number, at least 0"),
        (
            {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 20}, {"const": "auto"}]},
            "whole number, 1 to 20, or `auto`",
        ),
        ({"enum": ["on", "off"]}, "`on`, `off`"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "a list of `a`, `b`"),
        ({"type": "boolean"}, "true or false"),
    ],
)
def test_allowed_values_are_described_in_words(schema, words):
    assert parameters.values(schema) == words


@pytest.mark.parametrize("description", [None, ""])
def test_a_parameter_without_a_description_is_refused(monkeypatch, description):
    class FlipParams(Params):
        zoom: int = Field(1, description=description)

    monkeypatch.setattr(parameters, "COMMANDS", {"train": FlipParams})
    with pytest.raises(ValueError, match=r"^FlipParams\.zoom has no description$"):
        parameters.page()


def test_parameters_of_a_class_without_a_heading_are_refused(monkeypatch):
    class ZoomParams(Params):
        zoom: int = Field(1, description="of the image")

    monkeypatch.setattr(parameters, "COMMANDS", {"train": ZoomParams})
    with pytest.raises(ValueError, match=r"^ZoomParams declares parameters: give it a heading"):
        parameters.page()


def test_each_command_is_on_the_page():
    page = steps.page()
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(COMMANDS)


def test_a_logged_file_without_a_description_is_refused(monkeypatch):
    monkeypatch.delitem(logged.FILES["evaluate"], "per_class.csv")
    with pytest.raises(ValueError, match=r"^step evaluate logs per_class\.csv: describe it in reference/logged\.py$"):
        steps.page()


def test_a_description_of_a_file_that_is_not_logged_is_refused(monkeypatch):
    monkeypatch.setitem(logged.FILES["lr_range"], "gone.csv", "a table")
    with pytest.raises(ValueError, match=r"describes gone\.csv, which step lr_range does not log any more$"):
        steps.page()


@pytest.fixture
def faults_with(tmp_path):
    """A function that writes HTML into a page of a small site, and returns the faults of the site."""
    (tmp_path / "zensical.toml").write_text('[project]\nnav = [{"Home" = "index.md"}, {"More" = [{"A" = "a.md"}]}]\n')
    for folder, names in {"docs": ["index.md", "a.md"], "site": ["index.html", "a.html", "x.png"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    (tmp_path / "outside.yaml").touch()

    def show(html):
        (tmp_path / "site/index.html").write_text(html)
        return site.faults(tmp_path)

    return show


@pytest.mark.parametrize(
    "html",
    [
        '<img src="x.png"> <a href="a.html#part">a</a> <a href="#top">t</a> <a href="https://example.org">out</a>',
        '<link rel="canonical" href="https://example.org/"> <img src="/x.png"> <a href=".">home</a>',
        '<img src="data:image/png;base64,AA=="> <a href="mailto:a@example.org">m</a>',
    ],
)
def test_a_site_with_all_its_files_has_no_faults(faults_with, html):
    assert faults_with(html) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<img src="gone.png">', "index.html leads to gone.png, which is not there"),
        ('<a href="../outside.yaml">', "index.html leads to ../outside.yaml, which is not there"),
        ('<script src="https://example.org/a.js">', "index.html loads https://example.org/a.js from another host"),
        (
            '<link rel="stylesheet" href="//example.org/a.css">',
            "index.html loads //example.org/a.css from another host",
        ),
    ],
)
def test_a_fault_of_the_site_is_one_line(faults_with, html, fault):
    assert faults_with(html) == [fault]


def test_pages_outside_the_menu_are_faults_and_so_are_entries_without_a_page(faults_with, tmp_path):
    (tmp_path / "docs/a.md").rename(tmp_path / "docs/b.md")
    faults = ["docs/a.md is in the menu of zensical.toml, but no file", "docs/b.md is in no menu"]
    assert faults_with("") == faults


def test_without_a_command_the_program_names_its_commands(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err == "error: give pages or check\n"
