"""The pictures in docs/: made from stored runs or refused in one line, and present for every experiment."""

import re
import shlex
from itertools import pairwise

import pytest

from pictures import browser, gallery, screenshots
from pipeline.experiment_file import EXPERIMENTS
from pipeline.params import STEPS, as_text
from pipeline.report.record import Record, StepRecord
from pipeline.settings import resolve
from tests.browser import needs_chromium
from tests.conftest import PROJECT, Workplace

DOCS = PROJECT / "docs"
SHOWN = sorted(set(EXPERIMENTS.glob("*.yaml")) - {EXPERIMENTS / "folder.yaml"})  # which has no data set
SHORTENED = {"epochs": "2", "num_trials": "5", "limit_train": "2000"}


@pytest.mark.parametrize("make", [screenshots.make, lambda: gallery.main([])])
def test_pictures_without_chromium_are_refused_in_one_line(monkeypatch, capsys, make):
    monkeypatch.setattr(browser, "CHROMIUM", None)
    assert browser.status(make) == 2
    assert capsys.readouterr() == ("", "error: no Chromium on this machine: apt-get install chromium\n")


@needs_chromium
@pytest.mark.browser
def test_a_store_without_runs_to_show_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", Workplace(tmp_path).uri)
    with pytest.raises(ValueError, match=r"holds no finished main with a training: make run$"):
        screenshots.make(tmp_path)
    with pytest.raises(ValueError, match=f"^{'0' * 32} is no finished main in sqlite:"):
        screenshots.make(tmp_path, ["0" * 32])


def test_an_argument_without_a_value_is_refused_with_the_expected_form():
    with pytest.raises(ValueError, match=r"^epochs: expected name=value$"):
        gallery.main(["/path", "epochs"])


def record_of(shown):
    """The record of a run of the experiment, with its parameters."""
    params = resolve(shown.step, shown.flags).model_dump(mode="json")
    return Record(
        StepRecord(shown.step, "0" * 32, "a name", 1.0, params, {}, {"machine": "a machine", "git.commit": "abc"}), {}
    )


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_the_command_beside_a_picture_repeats_the_run(path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    (shown,) = (each for each in gallery._experiments("/of/mine", SHORTENED) if each.path == path)
    entry = gallery._entry(shown, record_of(shown), "98 % right")
    command = shlex.split(re.search(r"^mlflow run .*$", entry, re.M)[0])
    step = command[command.index("-e") + 1] if "-e" in command else "main"
    flags = dict(word.split("=", 1) for flag, word in pairwise(command) if flag == "-P")
    asked, ran = resolve(step, flags), resolve(shown.step, shown.flags)
    differing = {name for name in STEPS[step].model_fields if getattr(asked, name) != getattr(ran, name)}
    is_cifar10 = path.stem not in ("digits", "sweep_vit")
    assert differing == ({"data_dir"} if is_cifar10 else set())
    assert "/of/mine" not in entry and "98 % right" in entry and "a machine" in entry
    assert ("**Shortened** (" in entry, "`epochs=2`, not `" in entry) == (is_cifar10, is_cifar10)


def test_the_gallery_has_the_values_of_the_experiment_files():
    num_values = 0
    for entry in (DOCS / "gallery.md").read_text().split("\n## ")[1:]:
        name = entry.partition("\n")[0]
        step = "sweep" if "-e sweep" in entry else "main"
        declared = resolve(step, {"experiment": str(EXPERIMENTS / f"{name}.yaml")})
        for parameter, value in re.findall(r"`(\w+)=[^`]*`, not `([^`]*)`", entry):
            assert value == as_text(getattr(declared, parameter)), (name, parameter)
            num_values += 1
    assert num_values > 5


def test_every_experiment_is_in_the_gallery_and_every_picture_is_small():
    text = (DOCS / "gallery.md").read_text()
    names = {path.stem for path in SHOWN}
    assert set(re.findall(r"\]\(gallery/(\w+)\.png\)", text)) == set(re.findall(r"^## (\w+)$", text, re.M)) == names
    pages = [path.read_text() for path in DOCS.glob("*.md")]
    linked = {DOCS / path for page in pages for path in re.findall(r"\]\((\w+/\w+\.png)\)", page)}
    assert {*DOCS.glob("*/*.png")} <= linked
    assert max(path.stat().st_size for path in linked) <= browser.MAX_BYTES
