"""Prepares a recipe with its starting weights: pretrained, from a file, or from an earlier run."""

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.history import lookup
from pipeline.model_files import checkpoint, classifier, stored_calibration
from pipeline.models import timm_networks
from pipeline.models.weights import NOT_STATED, Pretrained, of_timm, of_torchvision
from pipeline.params import ModelParams, Params, RecipeParams, absolute
from pipeline.params.base import ID_START, trimmed
from pipeline.params.recipe import RUN, TIMM_WEIGHTS, TORCHVISION_WEIGHTS
from pipeline.progress import say, tell
from pipeline.text import from_cell
from pipeline.tracking import store
from pipeline.training import preflight
from pipeline.training.recipe import Recipe

NETWORK_PARAMS = [*(name for name in ModelParams.model_fields if name not in Params.model_fields), "image_size"]


def prepare(params: RecipeParams) -> Recipe:
    """The recipe on this machine, with the weights that `params` name. Prints how the weights are used.

    Raises ValueError if the weights cannot be loaded, or if weights, images and parameters do not match.
    """
    params = lookup.in_full(params)  # a sweep's space may name runs too
    recipe, notes, cautions = preflight.prepare(params, find(params))
    for line in notes:
        say(line)
    if params.weights.startswith(RUN) and (seen := _seen_before(recipe, params.weights.removeprefix(RUN))):
        cautions.append(f"weights={params.weights}: {seen}")
    for caution in cautions:
        tell(f"warning: {caution}")
    return recipe


def network_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Name, sizes and image_size of the weights' network, without the parameters that are `given`.

    Only runs and files of this project name their network; for other weights the result is empty. It is also empty if
    `given` asks for another network. Raises ValueError if there is no such run.
    """
    found = _network(str(given["weights"]))
    if given.get("model", found.get("model")) != found.get("model"):
        return {}
    return {name: found[name] for name in NETWORK_PARAMS if name in found and name not in given}


def _network(weights: str) -> dict[str, Any]:
    kind, separator, run_id = weights.partition(":")
    if trimmed(kind + separator) == RUN:
        if not re.fullmatch(ID_START, trimmed(run_id)):
            return {}  # the check of all parameters refuses it
        return lookup.stored_params(lookup.full_id(trimmed(run_id), "weights"))
    if not weights.endswith(".safetensors"):
        return {}
    try:
        described = classifier.parse(checkpoint.describe(Path(absolute(weights))))
    except ValueError:
        return {}  # not a file of this project, or no file: `find` says so
    return {**described.network.options, "model": described.network.name, "image_size": described.image_size}


def find(params: RecipeParams) -> Pretrained | None:
    """The weights that `params` name; None if they name none. Raises ValueError if they cannot be loaded."""
    asked = params.weights
    if asked == "none":
        return None
    if asked.startswith(RUN):
        run_id = asked.removeprefix(RUN)
        with store.scratch() as folder:
            best = store.artifact(run_id, "weights/best.safetensors", folder)
            return _from_file(best, params.model, asked, asked, f"run {run_id}")
    if timm_networks.has(params.model) and TIMM_WEIGHTS.fullmatch(asked):
        return of_timm(params.model, asked)
    if TORCHVISION_WEIGHTS.fullmatch(asked):
        return of_torchvision(params.model, asked)
    path = Path(absolute(asked))
    try:
        with path.open("rb") as file:
            identity = f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ValueError(f"weights={path}: {error.strerror or error}") from None
    return _from_file(path, params.model, asked, identity, f"file {path.name}")


def _seen_before(recipe: Recipe, run_id: str) -> str:
    """A warning if the training `run_id` has learned from images that are held out here, by name; empty if not."""
    if store.stored_run(run_id, "weights").data.tags.get("dataset") != recipe.params.dataset:
        return ""
    with store.scratch() as folder:
        try:
            table = pd.read_csv(store.artifact(run_id, "splits.csv", folder), dtype=str, keep_default_na=False)
            learned = {from_cell(name) for name in table["name"][table["split"] == "train"]}
        except (ValueError, KeyError):
            return "this run has no list of its train images: some may be in the test or validation split here"
    splits = recipe.splits
    held_out = {"test": splits.test.names, "validation": splits.valid.names if splits.valid else []}
    counts = {part: sum(name in learned for name in names) for part, names in held_out.items()}
    seen = [f"{count} of {len(held_out[part])} {part} images" for part, count in counts.items() if count]
    if not seen:
        return ""
    return f"this run has learned from {' and '.join(seen)}, by their names: their accuracy will be too high"


def _from_file(path: Path, model: str, asked: str, identity: str, origin: str) -> Pretrained:
    source = f"weights={asked}"
    if path.suffix == ".pth":
        return Pretrained(_unpickled(path, source), source, identity, origin, NOT_STATED)
    if not _is_described(path, source):
        return Pretrained(_bare_tensors(path), source, identity, origin, NOT_STATED)
    state, described = checkpoint.load(path)
    try:
        description = classifier.parse(described)
    except ValueError as error:
        raise ValueError(f"{source}: its description cannot be used ({error})") from None
    if description.members:
        number, first = len(description.members), description.members[0].run_id
        raise ValueError(f"{source}: is an ensemble of {number} networks; start from one of them, such as run:{first}")
    if description.network.name != model:
        raise ValueError(f"{source}: the weights are for model={description.network.name}, not for model={model}")
    return Pretrained(
        stored_calibration.split(state)[0],
        source,
        identity,
        f"{origin}, which started from {description.started_from}" if description.started_from else origin,
        description.licence or (NOT_STATED if description.started_from else ""),
        description.classes,
        description.mean,
        description.std,
        description.image_size,
        description.interpolation,
    )


def _is_described(path: Path, source: str) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return checkpoint.DESCRIPTION in (file.metadata() or {})
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its header is not valid"
        raise ValueError(f"{source}: not a safetensors file ({reason})") from None


def _bare_tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _unpickled(path: Path, source: str) -> dict[str, Tensor]:
    """The tensors, by name, that `torch.save` wrote. A pickle that holds anything else is refused unloaded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: the file is read, or refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{source}: holds more than tensors, or is not from torch.save ({_reason(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{source}: is not a state_dict, which maps names to tensors")
    return {str(name): tensor for name, tensor in state.items()}


def _reason(error: Exception) -> str:
    return store.first_line(error).split(".")[0]
