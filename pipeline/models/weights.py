"""Starting weights: gets published ones, and fits any weights into a network for other classes."""

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, WeightsEnum, get_model_weights
from torchvision.models.vision_transformer import interpolate_embeddings

from pipeline.models import backbones, downloads, outlines, stages, timm_networks

PerChannel = tuple[float, float, float]

KEPT = "its head is kept"
NOT_STATED = "not stated"  # a licence
AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")  # heads of the published googlenet and inception; ours have none
DENSE_LAYER = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")  # names in old DenseNet files


@dataclass(frozen=True)
class Pretrained:
    """Weights by name, where they come from, and the images they were made for."""

    state: Mapping[str, Tensor]
    source: str  # for messages
    identity: str  # the same for the same weights, wherever they are stored
    origin: str  # repository, address, file or run
    licence: str  # `NOT_STATED` if unknown; empty for weights that this project trained from nothing
    classes: tuple[str, ...] | None = None
    mean: PerChannel | None = None  # per channel, in [0, 1] units, like std
    std: PerChannel | None = None
    image_size: int | None = None  # px
    interpolation: str | None = None  # how those images were scaled


@dataclass(frozen=True)
class Fitted:
    """A state for one network, and a note about the head in the weights."""

    state: dict[str, Tensor]
    head: str


def tags(start: Pretrained | None) -> dict[str, str]:
    """The tags of a run for its starting weights: which they are, where they come from, and their licence."""
    if start is None:
        return {}
    of_others = {"weights.licence": start.licence} if start.licence else {}
    return {"weights": start.identity, "weights.source": start.origin, **of_others}


def of_torchvision(network: str, wanted: str) -> Pretrained:
    """Torchvision's weights of its `network`: `default`, or by name. Downloads them if they are not on this machine.

    Raises ValueError for an unknown name, and for a file that is not available or not as published.
    """
    found = _named(network, wanted)
    preset = found.transforms()
    red, green, blue = preset.mean
    spread = preset.std
    return Pretrained(
        _fetched(found, wanted),
        str(found),
        str(found),
        f"{found}, {found.url}",
        found.meta.get("license", NOT_STATED),
        tuple(found.meta["categories"]),
        (red, green, blue),
        (spread[0], spread[1], spread[2]),
        preset.crop_size[0],
        preset.interpolation.value,
    )


def _named(network: str, wanted: str) -> WeightsEnum:
    choices = get_model_weights(backbones.torchvision_name(network))
    named = {text: each for each in choices for text in (each.name, str(each))}
    if wanted == "default":
        return choices.DEFAULT
    if wanted not in named:
        has = ", ".join(each.name for each in choices)
        raise ValueError(f"weights={wanted}: torchvision has none of that name for {network} (it has {has})")
    return named[wanted]


def published_size(network: str, wanted: str) -> int | None:
    """The image size (px) of published weights, without a download. None for other weights, and for unknown names."""
    with suppress(ValueError):
        if timm_networks.has(network):
            return timm_networks.published_size(network, wanted)
        return int(_named(network, wanted).transforms().crop_size[0])
    return None


def of_timm(network: str, wanted: str) -> Pretrained:
    """timm's published weights of its `network`. If they are not available, raises ValueError that says what to do."""
    state, described, origin = timm_networks.published(network, wanted)
    red, green, blue = described.mean
    spread = described.std
    source = f"{described.hf_hub_id or described.architecture} of timm ({described.license or 'licence not stated'})"
    return Pretrained(
        state,
        source,
        f"timm {described.architecture}.{described.tag} {_digest(state)}",
        origin,
        described.license or NOT_STATED,
        None,
        (red, green, blue),
        (spread[0], spread[1], spread[2]),
        described.input_size[-1],
        described.interpolation,
    )


def _digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of the content of the tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def fitted(model: nn.Module, pretrained: Pretrained, classes: tuple[str, ...]) -> Fitted:
    """The state that `model`, a network for `classes`, takes from `pretrained`.

    If the head has other classes, a fresh head of zeros takes its place: all classes start equally likely. A random
    head would hide the features, and its gradients would spoil them in the first updates. A vision transformer's
    positions are interpolated to its grid. Raises ValueError if the tensors belong to another network.
    """
    own = model.state_dict()
    renamed = {DENSE_LAYER.sub(r"\1\2", name): tensor for name, tensor in pretrained.state.items()}
    state = {name: tensor for name, tensor in renamed.items() if name in own or not name.startswith(AUXILIARY)}
    head = stages.head(model)[0]
    of_head = [name for name in own if name.rpartition(".")[0] == head]
    head_note = _note_on_head(state, own, of_head, pretrained.classes, classes)
    if head_note != KEPT:
        state |= {name: torch.zeros_like(own[name]) for name in of_head}
    if isinstance(model, VisionTransformer):
        _interpolate_positions(model, state, pretrained.source)
    if differing := sorted(name for name in own.keys() | state.keys() if _misfit(own.get(name), state.get(name))):
        some = f"{len(differing)} tensors differ: {', '.join(differing[:3])}"
        hint = _hint(pretrained, model, differing)
        raise ValueError(f"{pretrained.source}: not weights of this network ({some}){hint}")
    if other := outlines.other_tables(model, state):
        raise ValueError(f"{pretrained.source}: not weights of this network ({other[0]} differs from its table)")
    if broken := [name for name, tensor in state.items() if _has_non_finite(tensor)]:
        raise ValueError(f"{pretrained.source}: holds values that are not finite ({', '.join(broken[:3])})")
    return Fitted(state, head_note)


def _hint(pretrained: Pretrained, model: nn.Module, differing: Sequence[str]) -> str:
    """The end of a message about weights that do not fit `model`: the image size or the network of timm that they fit.

    differing: the names of the tensors that do not fit.
    """
    if pretrained.image_size is not None and all("pos" in name for name in differing):
        return f"; only positions differ, so give image_size={pretrained.image_size}"
    if pretrained.mean is not None:  # they are described, so they say what they belong to
        return ""
    file = PurePosixPath(pretrained.origin.removeprefix("file ")).name.split(".")[0]
    found = timm_networks.owner(pretrained.state, (file, type(model).__name__.lower()))
    return f"; its tensors have timm's names: give model={found}" if found else ""


def _note_on_head(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: list[str],
    theirs: tuple[str, ...] | None,
    ours: tuple[str, ...],
) -> str:
    if any(name not in state for name in names):
        return f"it has no head: a fresh one of {len(ours)} classes"
    if any(state[name].shape != own[name].shape for name in names):
        return f"its head of {len(state[names[0]])} classes is replaced by a fresh one of {len(ours)}"
    if theirs is not None and theirs != ours:
        return f"its head, of {len(theirs)} other classes, is replaced by a fresh one"
    return KEPT


def _misfit(own: Tensor | None, given: Tensor | None) -> bool:
    if own is None or given is None:
        return True
    return own.shape != given.shape or own.is_floating_point() != given.is_floating_point()


def _has_non_finite(tensor: Tensor) -> bool:
    # One published file fails this check: its classifier was never trained.
    return tensor.is_floating_point() and not tensor.is_meta and not bool(tensor.isfinite().all())


def _interpolate_positions(model: VisionTransformer, state: dict[str, Tensor], source: str) -> None:
    positions = state.get("encoder.pos_embedding")
    if positions is None or positions.ndim != 3 or positions.shape[1] == model.seq_length:
        return
    try:
        interpolate_embeddings(model.image_size, model.patch_size, state)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{source}: its positions cannot be interpolated ({error})") from None


def _fetched(weights: WeightsEnum, wanted: str) -> Mapping[str, Tensor]:
    path = downloads.of_address(weights.url)
    try:
        if path.exists():  # torch checks the sum only of files that it downloads
            _check_sum(path)
        return weights.get_state_dict(progress=True, check_hash=True, map_location="cpu", weights_only=True)
    except (OSError, HTTPException) as error:
        reason = str(getattr(error, "reason", error))
        raise ValueError(
            f"weights={wanted}: {weights.url} cannot be fetched ({reason}): get the file elsewhere and put it at {path}"
        ) from None
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"weights={wanted}: {path}: {str(error).splitlines()[0]}") from None


def _check_sum(path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    published = torch.hub.HASH_REGEX.search(path.name)
    if published and not digest.startswith(published[1]):
        raise RuntimeError("its content is not what torchvision published: remove it")
