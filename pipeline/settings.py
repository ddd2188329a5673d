"""Turns flags and experiment files into the validated parameters of a step."""

import shlex
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.experiment_file import EXPERIMENTS, read_experiment
from pipeline.params import (
    COMMANDS,
    NOT_OFFERED,
    DataParams,
    Declared,
    ModelParams,
    RecipeParams,
    TerminalParams,
    absolute,
)
from pipeline.params.base import nearest

BestOf = Callable[[str, str], dict[str, Any]]
Choose = Callable[[Mapping[str, Any]], dict[str, Any]]
NetworkOf = Callable[[Mapping[str, Any]], dict[str, Any]]

# A user may change these when a run is resumed: they change no result, except for the last digits of a number.
FREE_TO_CHANGE = {
    "experiment",
    "resume",
    "from_study",
    "storage",
    "device",
    "devices",
    "shard_weights",
    "data_dir",
    "labels",
    "sweep_workers",
}
FREE_TO_CHANGE |= {"checkpoint_minutes", "keep_checkpoints", "compile", "checkpoint_activations"}
PLACES = ("data_dir", "labels", "storage", "weights", "register_as")  # what a run reads, writes and publishes
WHY_FIXED = {"epochs": "OneCycle plans every rate, also past ones, from the number of epochs"}


def resolve(
    step: str,
    flags: Mapping[str, str],
    best_of: BestOf | None = None,
    choose: Choose | None = None,
    network_of: NetworkOf | None = None,
) -> Declared:
    """The parameters of `step`: defaults, overridden by the experiment file, by a study's best, by `flags`.

    `best_of` finds a study's best parameters for `from_study`, given its name and storage. `choose` finds defaults for
    a folder of photos, unless an experiment file is named. `network_of` finds the parameters of the network that the
    starting weights belong to, where `flags` do not give them. `experiment` in the result is the file that was read, or
    `none`. Raises ValueError with one line for bad input; it names the file if the value came from one.
    """
    declared = COMMANDS[step].model_fields
    if network_of is not None and "weights" in declared:
        flags = {**_network(flags, network_of), **flags}
    path = _experiment_path(step, flags)
    from_file = {} if path is None else read_experiment(path)
    values = {name: value for name, value in from_file.items() if name in declared}
    given = {**values, **flags}
    if best_of is not None and given.get("from_study") and "from_study" in declared:
        values |= best_of(str(given["from_study"]), str(given.get("storage", "auto")))
    if choose is not None and _is_open_folder(step, flags):
        values |= {name: value for name, value in choose(flags).items() if name in declared}
    values |= flags
    if "experiment" in declared:
        values["experiment"] = "none" if path is None else _shown(path)
    try:
        return COMMANDS[step](**values)
    except ValidationError as error:
        raise ValueError(one_line(error, path, from_file.keys() - flags.keys())) from None


def resumed(
    step: str,
    flags: Mapping[str, str],
    run_id: str,
    stored: Mapping[str, Any],
    complete: Callable[[Declared], Declared] | None = None,
    written_by: str = "",
) -> Declared:
    """The parameters for resuming a run: those it was started with, `stored`, and the allowed changes in `flags`.

    complete: completes run ids that `flags` give only by their start. written_by: who wrote the stored parameters, if
    it was not this user. Raises ValueError that names each parameter that `flags`, or their experiment file, must not
    change, and each path or address that another user has written.
    """
    asked = flags.get("experiment", "auto")
    given = {**({} if asked in ("auto", "none") else read_experiment(Path(absolute(asked)))), **flags}
    changes = {name: value for name, value in given.items() if name in COMMANDS[step].model_fields}
    if written_by and (places := stored_places(COMMANDS[step], stored, changes)):
        raise ValueError(f"resume={run_id} {refusal(written_by, places)}")
    try:
        now = COMMANDS[step](**{**stored, **changes, "experiment": stored.get("experiment", "none"), "resume": run_id})
    except ValidationError as error:
        raise ValueError(f"resume={run_id}: {one_line(error)}") from None
    if complete is not None:
        now = complete(now)
    if differing := differences(stored, now):
        raise ValueError(f"resume={run_id}: {'; '.join(differing)}")
    return now


def stored_places(kind: type[Declared], stored: Mapping[str, Any], given: Container[str]) -> dict[str, Any]:
    """The `stored` parameters that name files, databases or models, and are neither defaults nor `given`."""
    fields = kind.model_fields
    return {
        name: stored[name]
        for name in PLACES
        if name in stored and name in fields and name not in given and stored[name] != fields[name].default
    }


def refusal(written_by: str, places: Mapping[str, Any]) -> str:
    """Why parameters of another user are not used, and what to do. Continues a sentence that starts with the run."""
    named = ", ".join(f"{name}={value}" for name, value in places.items())
    flags = " ".join(f"--{name}" for name in places)
    return f"belongs to {written_by}: {named} is not taken from a run of another user; give it yourself with {flags}"


def differences(stored: Mapping[str, Any], now: Declared) -> list[str]:
    """One text for each parameter that `now` would change although it must not change when a run is resumed.

    Raises ValueError if the stored parameters are from another version.
    """
    try:
        then = type(now)(**stored)
    except ValidationError:
        raise ValueError("the run's params.json is from another version of this project") from None
    found = []
    for name in type(now).model_fields.keys() - FREE_TO_CHANGE:
        before, after = getattr(then, name), getattr(now, name)
        # The run has replaced a rate of `auto` by the one it found.
        if before != after and not (name == "max_lr" and after == "auto"):
            why = f" ({WHY_FIXED[name]})" if name in WHY_FIXED else ""
            found.append(f"{name}={after} was {before} when the run was started{why}")
    return sorted(found)


def terminal(flags: Mapping[str, str]) -> TerminalParams:
    """The parameters of the terminal output. Raises ValueError with one line for bad input."""
    try:
        return TerminalParams(**flags)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None


def message(detail: ErrorDetails) -> str:
    """The message about one wrong value."""
    context = detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context["error"])
    text = detail["msg"].removeprefix("Input ").removeprefix("String ").split(", unable")[0]
    if detail["type"] == "literal_error":
        if str(detail["input"]).lower() in NOT_OFFERED:
            return f"is not offered; {text}"
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        text += nearest(str(detail["input"]), choices)
    return text


def one_line(error: ValidationError, path: Path | None = None, from_file: Iterable[str] = ()) -> str:
    """The message about wrong parameters, each with its value; for those `from_file`, also with the experiment file."""
    problems: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors():
        problems.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    lines = []
    for name, details in problems.items():
        source = f"experiment {path}: " if name in from_file else ""
        problem = " or ".join(dict.fromkeys(message(detail) for detail in details))
        lines.append(f"{source}{name}={details[0]['input']}: {problem}" if name else problem)
    return "; ".join(lines)


def command(step: str, **params: str) -> str:
    """The command line that runs `step` from this folder, quoted for a shell.

    `mlflow run .` would only work in the project's own folder, and by default needs conda.
    """
    flags = [word for name, value in params.items() for word in (f"--{name}", value)]
    return shlex.join(["python", "-m", "pipeline", step, *flags])


def _is_open_folder(step: str, flags: Mapping[str, str]) -> bool:
    """Whether `step` trains on a folder of photos, and neither an experiment file nor a study says how."""
    asked = flags.get("experiment", "auto"), flags.get("dataset")
    trains = issubclass(COMMANDS[step], RecipeParams) and step != "sweep"
    return asked == ("auto", "folder") and "from_study" not in flags and trains


def _network(flags: Mapping[str, str], network_of: NetworkOf) -> dict[str, Any]:
    """The parameters of the network that the starting weights belong to; none without weights or with a study."""
    asked = flags.get("experiment", "auto")
    given = {**({} if asked in ("auto", "none") else read_experiment(Path(absolute(asked)))), **flags}
    return {} if "from_study" in given or given.get("weights", "none") == "none" else network_of(given)


def _experiment_path(step: str, flags: Mapping[str, str]) -> Path | None:
    asked = flags.get("experiment", "auto")
    if asked not in ("auto", "none"):
        return Path(absolute(asked))
    if step == "sweep" and asked == "auto" and flags.get("model", "vit") == "vit":
        return EXPERIMENTS / "sweep_vit.yaml"
    if asked == "none" or not issubclass(COMMANDS[step], DataParams):
        return None
    defaults = {
        "dataset": DataParams.model_fields["dataset"].default,
        "model": ModelParams.model_fields["model"].default,
    }
    asked_for = {name: flags.get(name, default) for name, default in defaults.items()}
    stems = ["{dataset}_{model}".format(**asked_for)]
    # <dataset>.yaml is for a pretrained network if the data set is a folder, and for the default model otherwise.
    is_pretrained = "model" not in flags or flags.get("weights", "none") != "none"
    if is_pretrained if asked_for["dataset"] == "folder" else asked_for["model"] == defaults["model"]:
        stems.append(asked_for["dataset"])
    paths = (EXPERIMENTS / f"{stem}.yaml" for stem in stems if stem.replace("_", "").isalnum())
    return next((path for path in paths if path.is_file()), None)


def _shown(path: Path) -> str:
    return str(path.relative_to(EXPERIMENTS.parent)) if path.is_relative_to(EXPERIMENTS) else str(path)
