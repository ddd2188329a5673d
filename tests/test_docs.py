"""README and docs/: every command in them is one that the program takes, every link leads somewhere."""

import re
import shlex
from importlib.util import find_spec
from itertools import count, pairwise

import pytest

from pipeline.command_line import command_group
from pipeline.params import COMMANDS, STEPS, TerminalParams
from pipeline.settings import resolve, terminal
from pipeline.training.photo_defaults import BACKBONE
from reference.__main__ import PAGES
from tests.conftest import PROJECT

README = PROJECT / "README.md"
WRITTEN = [
    README,
    PROJECT / "CONTRIBUTING.md",
    *sorted(path for path in (PROJECT / "docs").glob("*.md") if path.name not in PAGES),
]
END = re.compile(r"\||&&|\s&|\s2?>|\s#")  # of a command, before what a shell makes of the rest
TARGETS = set(re.findall(r"^([a-z.][\w./-]*):", (PROJECT / "Makefile").read_text(), re.M))


def filled(block):
    """A block of commands with its placeholders and shell variables filled in, one command a line."""
    numbers = count(1)
    block = re.sub(r"<run id>", lambda _: f"{next(numbers):032x}", block.replace("\\\n", " "))
    block = re.sub(r"\$\(.*\)", "0" * 32, block)
    for name, value in re.findall(r'^([A-Z]+)=("[^"]*"|\S+)$', block, re.M):
        block = block.replace(f"${name}", value.strip('"'))
    return block.replace("run_id=...", "run_id=latest")


def commands(path):
    """Each command of a page's blocks, as words."""
    for block in re.findall(r"^ *```console\n(.*?)^ *```", path.read_text(), re.M | re.S):
        for line in filled(block).splitlines():
            for part in line.split(" && "):
                words = [word for word in shlex.split(END.split(f"{part} #")[0]) if word != "..."]
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words:
                    yield words


PAGE_COMMANDS = [
    pytest.param(words, id=f"{path.stem}: {shlex.join(words)}"[:90]) for path in WRITTEN for words in commands(path)
]


def chosen(flags):
    """The network that the program chooses for a folder of photos. The folders of the pages do not exist here."""
    return {} if "model" in flags else {"model": BACKBONE, "weights": "default"}


@pytest.mark.parametrize("words", [each for each in PAGE_COMMANDS if each.values[0][:2] == ["mlflow", "run"]])
def test_each_mlflow_run_names_a_step_and_its_parameters(words):
    assert words[2] == "."
    step = words[words.index("-e") + 1] if "-e" in words else "main"
    assert step in STEPS
    flags = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "-P")
    known = {"-e", "-P", "--env-manager", "."}
    assert {word for word in words[2:] if word.startswith("-")} <= known
    resolve(step, flags, choose=chosen)


@pytest.fixture(scope="module")
def asked():
    """The program's command line, and what it would have run: steps with their flags."""
    found = []

    def runner(step):
        return lambda **given: found.append((step, {name: value for name, value in given.items() if value is not None}))

    return command_group(runner), found


@pytest.mark.parametrize("words", [each for each in PAGE_COMMANDS if "pipeline" in each.values[0][1:3]])
def test_the_program_accepts_each_of_its_commands_on_the_pages(words, asked):
    program, found = asked
    found.clear()
    program.main(words[3:], standalone_mode=False)
    for step, flags in found:
        terminal({name: flags.pop(name) for name in TerminalParams.model_fields if name in flags})
        resolve(step, flags, choose=chosen)
    assert found or "--help" in words


@pytest.mark.parametrize(
    "words", [each for each in PAGE_COMMANDS if each.values[0][0] in ("make", "python", ".venv/bin/python")]
)
def test_each_make_target_module_and_script_exists(words):
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    else:
        assert find_spec(words[2]) if words[1] == "-m" else (PROJECT / words[1]).is_file()


def test_the_pages_have_many_commands():
    assert len(PAGE_COMMANDS) > 80


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_each_link_leads_to_a_file(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    local = {target.partition("#")[0] for target in targets if not re.match(r"https?:|#|mailto:", target)}
    made = {PROJECT / "docs" / name for name in PAGES}
    assert [name for name in local if not (path.parent / name).exists() and (path.parent / name) not in made] == []


def test_each_source_file_that_a_page_names_exists():
    there = [
        f"/{path.relative_to(PROJECT)}"
        for folder in ("pipeline", "tests", "benchmarks", "reference")
        for path in (PROJECT / folder).rglob("*.py")
    ]
    named = {(page.stem, name) for page in WRITTEN for name in re.findall(r"`([\w/]+\.py)`", page.read_text())}
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name[1]}") for path in there)] == []


@pytest.mark.parametrize("program", sorted((PROJECT / "docs/snippets").iterdir()), ids=lambda path: path.stem)
def test_each_snippet_is_shown_on_one_page(program):
    # A formatter of code in pages may break the line that includes a program.
    marks = re.compile(rf'^--8<-- "snippets/{program.name}"$', re.M)
    assert sum(len(marks.findall(path.read_text())) for path in WRITTEN) == 1


def test_links_of_the_readme_lead_to_headings():
    for page, heading in re.findall(r"\]\((docs/\w+\.md)#([\w-]+)\)", README.read_text()):
        titles = re.findall(r"^#+ (.*)$", (PROJECT / page).read_text(), re.M)
        assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, (page, heading)


def test_the_readme_has_at_most_200_lines():
    assert len(README.read_text().splitlines()) <= 200


def test_the_readme_names_each_command():
    assert set(re.findall(r"^\| `(\w+)` \|.*\]\(docs/", README.read_text(), re.M)) == set(COMMANDS)
