"""timm's classification networks as `timm/<name>`: builds them, gets their published weights, finds their map layer."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any, NamedTuple

import requests
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Size, Tensor, nn

from pipeline.models import downloads, outlines
from pipeline.models.architecture import Architecture, CamTarget

PREFIX = "timm/"
HUB = "hf-hub:"
CONNECT_SECONDS = 5  # for the hub to answer; its own client tries for most of a minute
SEARCH_SECONDS = 10  # processor time to find a network by its tensors; hundreds may be candidates

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def has(name: str) -> bool:
    """Whether `name` is the name of a timm network."""
    return name.startswith(PREFIX)


def names() -> list[str]:
    """All names that `find` knows, in order."""
    import timm  # a slow import, so other networks do not wait for it

    return [f"{PREFIX}{name}" for name in timm.list_models()]


def default(name: str) -> Any:
    """timm's description of the default weights of `timm/<name>`; None if none are published."""
    from timm.models import get_pretrained_cfg

    described = get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=False)
    return described if described is not None and described.has_weights else None


def find(name: str) -> Architecture | None:
    """timm's network called `timm/<name>`; None without that prefix. Raises ValueError for an unknown name."""
    if not has(name):
        return None
    import timm

    its_name = name.removeprefix(PREFIX)
    if not timm.is_model(its_name):
        close = get_close_matches(its_name, timm.list_models(), n=1)
        hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
        raise ValueError(f"model={name}: timm has no network of that name{hint}")
    return Architecture(partial(_build, its_name), ("image_size",), cam_target)


def owner(state: Mapping[str, Tensor], like: Sequence[str]) -> str:
    """The network `timm/<name>` whose tensors have the names and shapes of `state`, apart from the head.

    Empty if none is found within seconds. like: texts such as the name of a file. Networks with similar names come
    first, because some differ only in what they do with their tensors.
    """
    import timm
    from timm.models import get_pretrained_cfg

    def likeness(name: str) -> float:
        return max(SequenceMatcher(None, text, name).ratio() for text in like)

    end = time.process_time() + SEARCH_SECONDS
    for name in sorted(timm.list_models(), key=likeness, reverse=True):
        described = get_pretrained_cfg(name, allow_unregistered=False)
        if described is None or f"{described.first_conv}.weight" not in state or time.process_time() > end:
            continue
        with suppress(*outlines.REFUSALS), outlines.unallocated():
            own = timm.create_model(name, pretrained=False).state_dict()
            if _shapes(own, described.classifier) == _shapes(state, described.classifier):
                return f"{PREFIX}{name}"
    return ""


def _shapes(tensors: Mapping[str, Tensor], head: object) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in tensors.items() if name.rpartition(".")[0] != head}


def weights_folder() -> Path:
    """The folder for weights that a user puts there by hand, as `<name>.safetensors`. XDG_CACHE_HOME moves it."""
    return user_cache_path("classifier-pipeline") / "weights"


class Published(NamedTuple):
    """Weights, timm's description of them (`PretrainedCfg`), and the file, repository or address they come from."""

    state: dict[str, Tensor]
    described: Any
    origin: str


def published(name: str, wanted: str) -> Published:
    """The published weights of timm's network `name`.

    wanted: `default`, a tag of timm's such as `in1k`, or `hf-hub:<owner>/<name>`. For `default`, a file in
    `weights_folder` comes first, then the hub's cache on this machine, then the hub. If no weights are available,
    raises ValueError that says which file to get, and what to do with it.
    """
    import timm
    from timm.models import PretrainedCfg

    its_name = name.removeprefix(PREFIX)
    file = weights_folder() / f"{its_name}.safetensors"
    described = _described(its_name, wanted)
    if described is not None and isinstance(described.classifier, tuple | list):
        heads = f"{name} has {len(described.classifier)} heads"
        raise ValueError(
            f"weights={wanted}: {heads}, and only one is fitted to other classes: take another network, or weights=none"
        )
    if wanted == "default" and file.exists():
        return Published(_read(file), described, f"file {file.name}, as {_origin(described)}")
    _check_reachable(wanted, described, file)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    source = wanted if wanted.startswith(HUB) else f"{its_name}.{described.tag}" if described.tag else its_name
    try:
        model: Any = timm.create_model(source, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"weights={wanted}: {' '.join(str(error).split())}") from None
    described = described or PretrainedCfg(**model.pretrained_cfg)  # a repository's description comes with the model
    return Published(dict(model.state_dict()), described, _origin(described))


def _origin(described: Any) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{described.hf_hub_id}" if described.hf_hub_id else str(described.url)


def published_size(name: str, wanted: str) -> int | None:
    """The image size (px) of published weights; None for a repository. Raises ValueError if there are none."""
    described = _described(name.removeprefix(PREFIX), wanted)
    return None if described is None else int(described.input_size[-1])


def check(name: str) -> Any:
    """timm's description of the default weights of `name`. Raises ValueError if they are not available here."""
    its_name = name.removeprefix(PREFIX)
    described, file = _described(its_name, "default"), weights_folder() / f"{its_name}.safetensors"
    if not file.exists():
        _check_reachable("default", described, file)
    return described


def _described(name: str, wanted: str) -> Any:
    """timm's description of the weights `wanted`; None for a repository. Raises ValueError if there are none."""
    import timm
    from timm.models import get_pretrained_cfg

    if wanted.startswith(HUB):
        return None
    tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    if wanted != "default" and wanted not in tags:
        raise ValueError(
            f"weights={wanted}: timm has none of that name for {name} (it has {', '.join(tags) or 'none'})"
        )
    described = get_pretrained_cfg(name if wanted == "default" else f"{name}.{wanted}", allow_unregistered=False)
    if not tags or described is None:
        raise ValueError(f"weights={wanted}: timm has published none for {name}")
    return described


def _check_reachable(wanted: str, described: Any, file: Path) -> None:
    """Raises ValueError if the weights are not on this machine, and their server does not answer within seconds."""
    from huggingface_hub import constants

    repository = wanted.removeprefix(HUB) if wanted.startswith(HUB) else described.hf_hub_id
    place, what = constants.ENDPOINT, f"model.safetensors of {repository}"
    if not repository:
        place, what = described.url, "its weights, as a safetensors file,"
    if downloads.has_repository(repository) if repository else downloads.of_address(described.url).exists():
        return
    try:
        requests.head(place, timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        answer = f"{place} does not answer ({type(error).__name__})"
        # `published` reads the file at that place for `default` alone.
        advice = f"put {what} at {file}" if wanted == "default" else f"get {what} and give its path as weights"
        raise ValueError(f"weights={wanted}: {answer}; {advice}") from None


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: not a safetensors file ({error})") from None


def cam_target(model: Any) -> CamTarget:
    """The last layer of `model` with a grid, and a function from its output to (B, C, h, w).

    Raises ValueError for a network without layer names in timm.
    """
    info = getattr(model, "feature_info", None)
    if not info:
        raise ValueError(f"{type(model).__name__} of timm names no layer with a grid, so there is no map of it")
    last = (info.info if hasattr(info, "info") else info)[-1]
    layer = model.get_submodule(last["module"])
    # A transformer's head reads only the class token, so the other outputs of the last block have no gradient. The
    # output of that block's first norm has gradients everywhere, because the class token attends to it later.
    layer = getattr(layer, "norm1", layer) if hasattr(layer, "attn") else layer
    return CamTarget(layer, _to_grid(int(last["num_chs"]), int(getattr(model, "num_prefix_tokens", 0))))


def _to_grid(channels: int, prefix: int) -> Callable[[Tensor], Tensor]:
    def to_grid(output: Tensor) -> Tensor:
        if output.ndim == 4:
            return output if output.shape[1] == channels else output.permute(0, 3, 1, 2)
        number = output.shape[1]
        side = isqrt(number - prefix)
        # Some networks add their class token only after the layer that timm names.
        first = prefix if side**2 + prefix == number else 0
        side = isqrt(number - first)
        is_grid = output.ndim == 3 and side**2 + first == number
        return output[:, first:].transpose(1, 2).unflatten(2, (side, side)) if is_grid else output

    return to_grid


def _build(name: str, num_classes: int, image_size: int) -> nn.Module:
    import timm

    sized: dict[str, Any] = {"img_size": image_size} if _takes_size(name) else {}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **sized)
    except (ValueError, AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(f"image_size={image_size}: {name} cannot be built for it ({error})") from None
    return model


def _takes_size(name: str) -> bool:
    """Whether the network is built for one image size, like transformers with a table of positions."""
    from timm.models import get_pretrained_cfg

    described = get_pretrained_cfg(name, allow_unregistered=False)
    return bool(described is not None and described.fixed_input_size)
