"""Dependencies point one way, and each library stays behind its fence."""

import ast
import sys
from pathlib import Path

import pytest

PIPELINE = Path(__file__).resolve().parent.parent / "pipeline"

LAYERS = [
    {"params", "events", "device", "processes", "interrupts", "costs"},
    {"settings", "data", "augment", "models", "schedules", "optimizers", "metrics", "plots", "checkpoint"},
    {"batches", "classifier", "attribution", "faithfulness", "space"},
    {"loop", "store", "progress", "serving"},
    {"tracking"},
    {"range_test"},
    {"assemble", "study"},
    {"trained", "trials", "study_figures"},
    {"steps.lr_range", "steps.evaluate", "steps.explain"},
    {"steps.train", "steps.sweep"},  # both may run a range test
    {"steps.main"},
    {"__main__"},
]
FENCES = {
    "mlflow": {"store", "tracking", "serving"},
    "optuna": {"study", "study_figures", "trials", "steps.sweep"},
    "pytorch_grad_cam": {"attribution", "faithfulness"},
    "matplotlib": {"plots"},
    "click": {"__main__", "progress"},
    "yaml": {"settings"},
    "PIL": {"data"},
}
WITHOUT_TORCH = {"params", "events", "settings", "space", "study", "metrics", "plots", "__main__"}


def module_name(path):
    parts = path.relative_to(PIPELINE).with_suffix("").parts
    if parts[0] in ("data", "models", "plots"):
        return parts[0]
    return ".".join(part for part in parts if part != "__init__")


def imported(path):
    """Full names of everything a file imports, at its top or within."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = [path for path in sorted(PIPELINE.rglob("*.py")) if module_name(path) not in ("", "steps")]


def layer_of(name):
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    own = module_name(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "pipeline" or len(parts) == 1:
            continue
        other = ".".join(parts[1:3]) if parts[1] == "steps" and len(parts) > 2 else parts[1]
        if other not in ("steps", own):
            assert layer_of(other) < layer_of(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_libraries_stay_behind_their_fences(path):
    own = module_name(path)
    libraries = {name.split(".")[0] for name in imported(path)}
    for library, users in FENCES.items():
        assert library not in libraries or own in users, f"{own} imports {library}"
    if own in WITHOUT_TORCH:
        assert "torch" not in libraries


def test_every_third_party_import_is_a_declared_dependency():
    import tomllib

    declared = tomllib.loads((PIPELINE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    aliases = {"pytorch_grad_cam": "grad-cam", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
    libraries = {name.split(".")[0] for path in FILES for name in imported(path)}
    third_party = libraries - set(sys.stdlib_module_names) - {"pipeline", "pydantic_core"}
    names = {requirement.split("~")[0].split(">")[0].split("<")[0] for requirement in declared}
    assert {aliases.get(library, library) for library in third_party} <= names


def test_mlproject_conda_and_pyproject_agree():
    import tomllib

    import yaml

    from pipeline.params import STEPS

    root = PIPELINE.parent
    project = yaml.safe_load((root / "MLproject").read_text())
    assert set(project["entry_points"]) == set(STEPS)
    for step, entry in project["entry_points"].items():
        assert entry["command"] == f"python -m pipeline {step} --experiment {{experiment}}"
        assert entry["parameters"]["experiment"]["default"] == STEPS[step].model_fields["experiment"].default
    environment = yaml.safe_load((root / "conda.yaml").read_text())
    packages = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    declared = tomllib.loads((root / "pyproject.toml").read_text())
    assert packages == declared["project"]["dependencies"]
    assert "python=3.11" in environment["dependencies"]
