"""Steps as function calls, as the documentation shows them, and the installed command."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

import pipeline
from tests.conftest import PROJECT, Workplace

EXAMPLE = re.search(r"```python\n(.*?)```", (PROJECT / "docs/notebooks.md").read_text(), re.DOTALL)


def test_the_example_of_the_documentation_runs(tmp_path):
    assert EXAMPLE
    place = Workplace(tmp_path)
    code = EXAMPLE[1].replace('dataset="digits"', 'dataset="digits", limit_train=300, limit_test=40, width=4')
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={**os.environ, **place.environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    accuracy, path = done.stdout.splitlines()
    assert re.fullmatch(r"test accuracy [\d.]+%", accuracy)
    assert path.endswith("confusion_matrix.png")
    assert "leaked" not in done.stderr


@pytest.mark.parametrize(
    ("step", "given", "message"),
    [
        ("trian", {}, "unknown step trian; did you mean train?"),
        ("train", {"epoch": 3}, "train has no parameter epoch; did you mean epochs?"),
        ("train", {"epochs": 0}, "epochs=0: should be greater than or equal to 1"),
        (
            "train",
            {"devices": 2},
            "devices=2: a notebook trains on one device; type python -m pipeline train --devices 2",
        ),
        ("predict", {"photos": ["cat.jpg"]}, "photos: prints lines on a terminal, not in a notebook; give images"),
    ],
)
def test_a_mistake_in_a_call_is_refused_in_one_line(step, given, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        pipeline.run(step, **given)
    assert "\n" not in str(caught.value)


def test_the_installed_command_is_main_and_completes_names():
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    (name, entry), *_ = scripts.items()
    module, function = entry.split(":")
    code = f"import sys; sys.argv[0] = {name!r}; from {module} import {function}; sys.exit({function}())"
    words = {"COMP_WORDS": f"{name} train --max", "COMP_CWORD": "2", "_CLASSIFIER_PIPELINE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **words}, cwd=PROJECT, capture_output=True, text=True
    )
    assert "plain,--max_lr" in done.stdout.split()
