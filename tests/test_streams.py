"""A command ends with its answer or with one line, whatever standard output and standard error are."""

import os
import subprocess

import pytest
from PIL import Image

from tests.conftest import PROJECT, Workplace

RECIPE = {"experiment": "none", "dataset": "folder", "image_size": 16, "batch_size": 4, "model": "resnet9", "width": 4}
RECIPE |= {"epochs": 1, "max_lr": 0.01, "data_dir": "photos"}
NAMES = ("été", "猫")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A workplace with a training on two classes with names that are not ASCII, and a first prediction."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    for shade, name in enumerate(NAMES):
        for part, number in (("train", 12), ("test", 3)):
            folder = place.folder / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.new("RGB", (20, 20), (150 * shade + i, i, 0)).save(folder / f"{i}.png")
    assert place.run("train", **RECIPE) == 0
    assert place.run("predict", photo(NAMES[0])) == 0
    return place


def photo(name):
    return f"photos/test/{name}/0.png"


def typed(workplace, words, redirections="", **environment):
    """Runs `python -m pipeline WORDS REDIRECTIONS` in a shell."""
    command = f"python -m pipeline {words} {redirections}"
    # An unbuffered stream raises its errors earlier than the stream that most users have.
    env = {**workplace.environment, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "", **environment}
    return subprocess.run(["bash", "-c", command], cwd=workplace.folder, env=env, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("encoding", "first", "second"),
    [
        pytest.param("utf-8", "été", "猫", marks=pytest.mark.slow),
        ("latin-1", "été", "\\u732b"),
        pytest.param("ascii", "\\xe9t\\xe9", "\\u732b", marks=pytest.mark.slow),
        pytest.param("latin-1:strict", "été", "\\u732b", marks=pytest.mark.slow),
    ],
)
def test_characters_that_a_stream_cannot_encode_are_escaped(workplace, encoding, first, second):
    done = typed(workplace, f"predict {photo(NAMES[0])} {photo(NAMES[1])}", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode(encoding.partition(":")[0]).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [photo(first), photo(second)]
    assert all(first in line and second in line for line in lines)


@pytest.mark.parametrize(
    ("words", "redirections", "reason"),
    [
        pytest.param(f"predict {photo(NAMES[0])}", "> /dev/full", "No space left on device", marks=pytest.mark.slow),
        pytest.param(f"predict {photo(NAMES[0])}", "> >(true)", "Broken pipe", marks=pytest.mark.slow),
        ("status", "> /dev/full", "No space left on device"),
        ("train --help", "> /dev/full", "No space left on device"),
        ("", "> /dev/full", "No space left on device"),
    ],
)
def test_an_answer_that_cannot_be_written_is_one_line(workplace, words, redirections, reason):
    done = typed(workplace, words, redirections)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [f"error: standard output cannot be written: {reason}"]


@pytest.mark.parametrize(
    ("words", "redirections"),
    [
        pytest.param(f"predict {photo(NAMES[0])}", "2>&-", marks=pytest.mark.slow),
        (f"predict {photo(NAMES[0])}", "<&- >&- 2>&-"),
        pytest.param("evaluate", "2>&-", marks=pytest.mark.slow),
        pytest.param("evaluate", "2> /dev/full", marks=pytest.mark.slow),
        pytest.param("evaluate", "2> >(true)", marks=pytest.mark.slow),
    ],
)
def test_messages_that_cannot_be_written_do_not_stop_the_work(workplace, words, redirections):
    done = typed(workplace, words, redirections)
    assert done.returncode == 0
    assert done.stderr == b""
    assert (photo(NAMES[0]) in done.stdout.decode()) == (words.startswith("predict") and ">&- 2" not in redirections)


@pytest.mark.slow
def test_a_training_continues_after_the_reader_of_its_messages_has_gone(workplace, tmp_path):
    place = Workplace(tmp_path)
    recipe = {**RECIPE, "epochs": 2, "data_dir": workplace.folder / "photos"}
    words = " ".join(f"--{name} {value}" for name, value in recipe.items())
    assert typed(place, f"train {words}", "2> >(head -n 1 >/dev/null)").returncode == 0
    assert place.runs("train")[0].info.status == "FINISHED"


def test_no_file_takes_the_place_of_a_closed_stream(workplace):
    done = typed(workplace, "status", "<&- >&- 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    code = (
        "import os, sys; from pipeline import streams\n"
        "with streams.guarded():\n"
        "    names = {os.path.realpath(f'/proc/self/fd/{number}') for number in range(3)}\n"
        "    opened = os.open('/', os.O_RDONLY)\n"
        "    open(sys.argv[1], 'w').write(f'{sorted(names)} {opened > 2}')"
    )
    found = workplace.folder / "found"
    command = ["bash", "-c", f'"$0" -c "$1" {found} <&- >&- 2>&-', "python", code]
    subprocess.run(command, env={**workplace.environment, "PYTHONPATH": str(PROJECT)}, check=True, timeout=60)
    assert found.read_text() == f"{[os.devnull]} True"
