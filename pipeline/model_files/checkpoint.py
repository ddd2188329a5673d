"""Tensors and their description in one safetensors file, written atomically and read without pickle."""

import errno
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.disk import replacing
from pipeline.model_files.host_copies import is_channels_last, on_cpu

DESCRIPTION, DIGEST = "classifier", "sha256"  # keys of the file's metadata


def save(path: Path, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Writes `state` and `description` (as JSON) to one safetensors file. A reader never sees an incomplete file."""
    text = json.dumps(description)
    found = on_cpu(list(state.values()))
    tensors = {name: tensor.detach().contiguous() for name, tensor in zip(state, found, strict=True)}
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata={DESCRIPTION: text, DIGEST: _digest(tensors, text)})
        except SafetensorError as error:
            raise OSError(_error_number(error), str(error), str(path)) from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The (state, description) that `save` wrote, on the CPU. Raises ValueError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata[DESCRIPTION]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            description = dict(json.loads(text))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not weights of this pipeline ({error})") from None
    found = _digest(tensors, text)
    if metadata.get(DIGEST, found) != found:  # files of earlier versions have none
        raise ValueError(f"{path}: not weights of this pipeline (the file is damaged or was changed)")
    return tensors, description


def digest(path: Path) -> str:
    """64 hex digits of a file's content, independent of its layout. Raises ValueError for any other file."""
    tensors, description = load(path)
    return _digest(tensors, json.dumps(description))


def describe(path: Path) -> dict[str, Any]:
    """Only the description, without reading the tensors. Raises ValueError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {})[DESCRIPTION]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not weights of this pipeline ({error})") from None


def save_tree(path: Path, tree: Any, description: Mapping[str, Any]) -> None:
    """Writes `tree` (nested dicts, lists and tuples of tensors and plain values) like `save`."""
    tensors: dict[str, Tensor] = {}
    outline = _outline(tree, tensors)
    save(path, tensors, {**description, "tree": outline})


def load_tree(path: Path) -> tuple[Any, dict[str, Any]]:
    """The (tree, description) that `save_tree` wrote. Raises ValueError for any other file."""
    tensors, description = load(path)
    try:
        return _tree(description.pop("tree"), tensors), description
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: not the state of a training ({error})") from None


def _outline(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """`tree` in a form for JSON: dicts as pairs, so that keys may have any type; tensors by name and memory format."""
    if isinstance(tree, Tensor):
        name = str(len(tensors))
        tensors[name] = tree
        return {"tensor": name, "channels_last": is_channels_last(tree)}
    if isinstance(tree, Mapping):
        return {"dict": [[key, _outline(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {type(tree).__name__: [_outline(value, tensors) for value in tree]}
    return {"value": tree}


def _tree(outline: Any, tensors: dict[str, Tensor]) -> Any:
    if "tensor" in outline:
        tensor = tensors.pop(outline["tensor"])  # removed once used, so that a tree takes no more memory than its file
        return tensor.contiguous(memory_format=torch.channels_last) if outline["channels_last"] else tensor
    if "dict" in outline:
        return {key: _tree(value, tensors) for key, value in outline["dict"]}
    for kind in (list, tuple):
        if kind.__name__ in outline:
            return kind(_tree(value, tensors) for value in outline[kind.__name__])
    return outline["value"]


def _error_number(error: SafetensorError) -> int:
    """The system's error number, from safetensors' message: `... (os error 28)`."""
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else errno.EIO


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
