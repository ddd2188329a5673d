"""Where a trained classifier looks: class activation maps, attention rollout, the attention of Ultimus."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import VisionTransformer

from pipeline.data.batches import batch_size
from pipeline.models import CamTarget, untouched
from pipeline.models.ultimus import Ultimus
from pipeline.models.vit import tokens_to_grid


class NotFinite(ValueError):
    """The logits or the maps of a network are no numbers."""


METHODS: dict[str, type[BaseCAM]] = {
    "gradcam": GradCAM,  # Selvaraju et al. 2017, arXiv:1610.02391
    "gradcam++": GradCAMPlusPlus,  # Chattopadhay et al. 2018, arXiv:1710.11063
    "layercam": LayerCAM,  # Jiang et al. 2021, doi:10.1109/TIP.2021.3089943
    "hirescam": HiResCAM,  # Draelos & Carin 2020, arXiv:2011.08891
}


def class_maps(model: nn.Module, where: CamTarget, images: Tensor, targets: Tensor, method: str) -> np.ndarray:
    """What speaks for class `targets[i]` in `images[i]`: (B, H, W) float32 in [0, 1], scaled image by image.

    `images` (B, 3, H, W) float32 are as the model takes them, on its device; `targets` (B,) int64. Strengths
    of two images cannot be compared. A blank map (see `is_blank`) stays zero. The model is left as it was.
    Raises ValueError for an unknown method, a target without a logit, a layer that yields no grid, and NotFinite
    for logits or maps that are not finite.
    """
    if method not in METHODS:
        raise ValueError(f"no attribution method is called {method!r} (methods: {', '.join(METHODS)})")
    if len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    size = batch_size(images.shape[-1])
    parts = zip(images.split(size), targets.split(size), strict=True)
    return np.concatenate([_class_maps(model, where, some, theirs, method) for some, theirs in parts])


def _class_maps(model: nn.Module, where: CamTarget, images: Tensor, targets: Tensor, method: str) -> np.ndarray:
    layer = _name(model, where)
    with untouched(model), torch.inference_mode(False), torch.enable_grad(), _cut(where, model, layer, targets):
        maps = _run(METHODS[method](model, [where.layer], where.to_grid), images.detach().clone(), targets)
    if not np.isfinite(maps).all():
        raise NotFinite(f"{method} at {layer} gives maps that are not finite for images {tuple(images.shape)}")
    return maps


def grid_size(model: nn.Module, where: CamTarget, images: Tensor) -> tuple[int, int]:
    """Height and width (cells) of the class activation maps of `images` before they are scaled up."""
    layer = _name(model, where)
    grids: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        grids.append(_grid(where, layer, output))

    handle = where.layer.register_forward_hook(keep)
    try:
        with untouched(model), torch.inference_mode():
            model(images[:1])
    finally:
        handle.remove()
    height, width = grids[0].shape[2:]
    return height, width


def is_blank(maps: np.ndarray) -> np.ndarray:
    """(B,) bool: maps (B, H, W) that are zero throughout: no positive evidence, or the same everywhere."""
    return (maps == 0).all(axis=(1, 2))


def attention_rollout(model: VisionTransformer, images: Tensor) -> np.ndarray:
    """How much of each patch reaches the class token through all blocks: (B, H, W) float32 in [0, 1].

    Attention averaged over the heads, mixed half and half with the shortcut, multiplied through the blocks
    (Abnar & Zuidema 2020, arXiv:2005.00928); scaled image by image, the same for every class. `images`
    (B, 3, H, W) float32, as the model takes them.
    """
    return np.concatenate([_rollout(model, some) for some in images.split(batch_size(images.shape[-1]))])


def _rollout(model: VisionTransformer, images: Tensor) -> np.ndarray:
    attentions: list[Tensor] = []

    def keep(attention: Any, tokens: tuple[Tensor, ...], _: Any) -> None:
        # The block itself asks for no weights. `forward`, since a call would run this hook again.
        attentions.append(attention.forward(*tokens, need_weights=True)[1])

    handles = [block.self_attention.register_forward_hook(keep) for block in model.encoder.layers]
    try:
        with untouched(model), torch.inference_mode():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    shortcut = torch.eye(attentions[0].shape[-1], device=images.device)
    rollout = shortcut
    for attention in attentions:
        rollout = (attention + shortcut) / 2 @ rollout
    grids = tokens_to_grid(rollout[:, :1].transpose(1, 2))
    return scale_cam_image(interpolate(grids, images.shape[2:], mode="bilinear")[:, 0].cpu().numpy())


def attention_matrices(model: Ultimus, images: Tensor) -> np.ndarray:
    """What each value (row) gives to each result (column) in every block: (B, 4, 8, 8), in [0, 1/sqrt(8)]."""
    with untouched(model), torch.inference_mode():
        return model.attention(images).cpu().numpy()


@contextmanager
def _cut(where: CamTarget, model: nn.Module, layer: str, targets: Tensor) -> Iterator[None]:
    """Within it gradients begin at `where`, so that a backward pass ends there, and `_check` sees every forward pass.

    To be entered before the package places its own hooks, which are then given what it returns.
    """

    def begin_here(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        _grid(where, layer, output)
        # A copy, since the layer that follows may work in place, which a tensor where gradients begin does not bear.
        begun: Tensor = output.detach().requires_grad_().clone()
        return begun

    def check(module: nn.Module, inputs: Any, logits: Tensor) -> None:
        if not logits.requires_grad:
            raise ValueError(f"there is no map of this network: its layer {layer} has no part in the logits")
        _check(logits, targets)

    handles = [where.layer.register_forward_hook(begin_here), model.register_forward_hook(check)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _grid(where: CamTarget, layer: str, output: Any) -> Tensor:
    """What the layer of that name puts out, as (B, C, h, w). Raises ValueError where that is no grid."""
    grid = where.to_grid(output) if where.to_grid and isinstance(output, Tensor) else output
    if isinstance(grid, Tensor) and grid.ndim == 4:
        return grid
    what = tuple(grid.shape) if isinstance(grid, Tensor) else f"a {type(grid).__name__}"
    raise ValueError(f"there is no map of this network: its layer {layer} yields {what}, not (B, C, h, w)")


def _name(model: nn.Module, where: CamTarget) -> str:
    return next(name for name, module in model.named_modules() if module is where.layer)


def _check(logits: Tensor, targets: Tensor) -> None:
    """Refuses what the package would answer with a zero map, a wrong one or a printed line."""
    if not logits.isfinite().all():
        raise NotFinite("the model's logits are not finite")
    classes = logits.shape[1]
    if wrong := [target for target in targets.tolist() if not 0 <= target < classes]:
        raise ValueError(f"target {wrong[0]} is no class of a model with {classes} logits")


def _run(cam: BaseCAM, inputs: Tensor, targets: Tensor) -> np.ndarray:
    # Not by its `with`, which prints an IndexError and goes on.
    try:
        return cam(inputs, [ClassifierOutputTarget(target) for target in targets.tolist()])
    finally:
        cam.activations_and_grads.release()
