"""The lock file: it fits the requirements of today, and anybody can install from it."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import PROJECT

PYTHONS = ["3.11", "3.12", "3.13"]
LOCK = tomllib.loads((PROJECT / "uv.lock").read_text())
PROJECT_FILE = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def parts(requirement):
    return canonicalize_name(requirement.name), frozenset(requirement.extras), str(requirement.specifier)


def test_the_lock_file_has_the_requirements_of_pyproject():
    (own,) = (each for each in LOCK["package"] if each["name"] == PROJECT_FILE["project"]["name"])
    locked = {
        (each["name"], frozenset(each.get("extras", ())), frozenset(each.get("specifier", "").split(",")))
        for each in [*own["metadata"]["requires-dist"], *own["metadata"]["requires-dev"]["server"]]
    }
    project = PROJECT_FILE["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    asked = map(Requirement, [*lines, *PROJECT_FILE["dependency-groups"]["server"]])
    wanted = {(name, extras, frozenset(specifier.split(","))) for name, extras, specifier in map(parts, asked)}
    assert locked == wanted, "run: uv lock"


def test_the_lock_file_names_no_other_registry_than_pypi():
    registries = {source for each in LOCK["package"] if (source := each["source"].get("registry"))}
    assert registries == {"https://pypi.org/simple"}
    hosts = set(re.findall(r"https?://([^/\"]+)", (PROJECT / "uv.lock").read_text()))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_every_supported_python_is_locked_and_tested():
    marks = " ".join(LOCK["resolution-markers"])
    workflow = (PROJECT / ".github/workflows/tests.yml").read_text()
    sessions = (PROJECT / "noxfile.py").read_text()
    for version in PYTHONS:
        assert version in marks
    matrix = ", ".join(f'"{version}"' for version in PYTHONS)
    assert f"[{matrix}]" in workflow
    assert f"[{matrix}]" in sessions
