"""Dependencies point one way, and each library stays behind its fence."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PIPELINE = Path(__file__).resolve().parent.parent / "pipeline"

# Rooms from the ground up: a room may use those before it.
FLOORS = [
    "text",
    "disk",
    "streams",
    "demo",
    "params",
    "experiment_file",
    "settings",
    "data",
    "models",
    "results",
    "report",
    "explain",
    "training",
    "doctor",
    "progress",
    "model_files",
    "tracking",
    "history",
    "resume",
    "sweep",
    "steps",
    "launch",
    "notebook",
    "command_line",
    "__main__",
]
ALONE = {"data", "models", "results"}  # rooms of plain values, which import no other room
FENCES = {
    "mlflow": {"tracking", "resume", "model_files.registry", "model_files.serving", "history"},
    "optuna": {
        "sweep.samplers",
        "sweep.storage",
        "sweep.study",
        "sweep.workers",
        "sweep.figures",
        "sweep.trials",
        "steps.sweep",
    },
    "pytorch_grad_cam": {"explain"},
    "matplotlib": {"results.plots"},
    "cleanlab": {"doctor"},
    "click": {"__main__", "command_line", "progress"},
    "yaml": {"experiment_file"},
    "PIL": {"data", "results.sprite"},
    "pi_heif": {"data.formats"},
    "jinja2": {"report"},
    "onnxruntime": {"model_files.export"},
    "rich": {"progress"},
    "safetensors": {"model_files", "history.initial_weights", "models.timm_networks"},
    "starlette": {"demo"},
    "timm": {"models.timm_networks"},
    "uvicorn": {"demo"},
}
WITHOUT_TORCH = {
    "text",
    "disk",
    "streams",
    "demo",
    "params",
    "experiment_file",
    "settings",
    "training.events",
    "sweep.space",
    "sweep.study",
    "sweep.workers",
    "results",
    "report",
    "progress",
    "command_line",
    "__main__",
}
LONGEST = 250  # lines of a file, as many as a reader can keep in mind


def module_name(path):
    return ".".join(part for part in path.relative_to(PIPELINE).with_suffix("").parts if part != "__init__")


def imported(path):
    """Full names of everything that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import has no full name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = [path for path in sorted(PIPELINE.rglob("*.py")) if module_name(path)]
MODULES = {module_name(path) for path in FILES}


def used(path):
    """Our own modules that a file imports."""
    for name in imported(path):
        name = name.removeprefix("pipeline.") if name.startswith("pipeline.") else ""
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            yield name


def room(name):
    return name.partition(".")[0]


def is_in(name, places):
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_down(path):
    own = room(module_name(path))
    # Every room may import the events of training, which are plain values, and text.
    for name in set(used(path)) - {"training.events", "text"}:
        if room(name) != own:
            assert FLOORS.index(room(name)) < FLOORS.index(own), f"{module_name(path)} imports {name}"
            assert own not in ALONE, f"{module_name(path)} imports {name}"


def test_imports_within_a_room_have_no_cycle():
    graph = {module_name(path): set(used(path)) - {module_name(path)} for path in FILES}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_a_served_model_brings_all_rooms_that_it_imports():
    from pipeline.tracking.sender import SERVING_ROOMS

    imports = {module_name(path): {*used(path), room(module_name(path))} for path in FILES}
    found, to_follow = set(), {"model_files.serving"}
    while to_follow:
        found |= to_follow
        to_follow = set().union(*(imports.get(name, ()) for name in to_follow)) - found
    rooms = {room(name) for name in found}
    assert {name for name in rooms if (PIPELINE / name).is_dir()} == {*SERVING_ROOMS}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_libraries_stay_behind_their_fences(path):
    own = module_name(path)
    libraries = {name.split(".")[0] for name in imported(path)}
    for library, users in FENCES.items():
        assert library not in libraries or is_in(own, users), f"{own} imports {library}"
    if is_in(own, WITHOUT_TORCH):
        assert "torch" not in libraries


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= LONGEST


def test_every_third_party_import_is_a_declared_dependency():
    import tomllib

    declared = tomllib.loads((PIPELINE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    aliases = {
        "pytorch_grad_cam": "grad-cam",
        "sklearn": "scikit-learn",
        "PIL": "pillow",
        "pi_heif": "pi-heif",
        "yaml": "pyyaml",
        "pynvml": "nvidia-ml-py",
        "huggingface_hub": "huggingface-hub",
    }
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
