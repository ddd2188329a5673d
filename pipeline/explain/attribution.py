"""Shows where a trained classifier looks: by attention in vision transformers, else by class activation maps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn.functional import interpolate

from pipeline.data.batches import batch_size
from pipeline.explain import attention, logits
from pipeline.explain.logits import NotFinite
from pipeline.models import CamTarget, untouched
from pipeline.models.ensemble import Ensemble, first_of

AUTO = "auto"
CAMS: dict[str, type[BaseCAM]] = {
    "gradcam": GradCAM,  # Selvaraju et al. 2017, arXiv:1610.02391
    "gradcam++": GradCAMPlusPlus,  # Chattopadhay et al. 2018, arXiv:1710.11063
    "layercam": LayerCAM,  # Jiang et al. 2021, doi:10.1109/TIP.2021.3089943
    "hirescam": HiResCAM,  # Draelos & Carin 2020, arXiv:2011.08891
}
METHODS = (*attention.METHODS, *CAMS)


def choose(asked: str, model: nn.Module, where: CamTarget, images: Tensor) -> str:
    """The method of METHODS for `asked`. For `auto`, it depends on the network.

    `auto` is attention relevance if in every block every token attends to every other, else Grad-CAM. `images` (B, 3,
    H, W) are as the model takes them; only the first is used. Raises ValueError for an unknown method, and for an
    attention method that does not suit the network.
    """
    if asked not in (AUTO, *METHODS):
        raise ValueError(f"no attribution method is called {asked!r} (methods: {', '.join((AUTO, *METHODS))})")
    if asked in CAMS:
        return asked
    model = first_of(model)
    if attention.weights_per_image(model, where, images[:1]):
        return "attention_relevance" if asked == AUTO else asked
    if asked != AUTO:
        raise ValueError(
            f"method={asked}: {type(model).__name__} has no attention from every token to every other in every block, "
            f"which it needs; choose {AUTO}, {', '.join(CAMS)}"
        )
    return "gradcam"


def compared(method: str, model: nn.Module, where: CamTarget, images: Tensor) -> list[str]:
    """Methods to show beside `method`: attention and Grad-CAM, if the network suits both; else none."""
    if not attention.weights_per_image(first_of(model), where, images[:1]):
        return []
    return [other for other in (*attention.METHODS, "gradcam") if other != method]


def class_maps(model: nn.Module, where: CamTarget, images: Tensor, targets: Tensor, method: str) -> np.ndarray:
    """How much each pixel of `images[i]` speaks for class `targets[i]`: (B, H, W) float32 in [0, 1], scaled per image.

    `images` (B, 3, H, W) float32 are as the model takes them, on its device; `targets` (B,) int64; `method` as in
    `choose`. Values of different images cannot be compared. A blank map (see `is_blank`) stays zero. The map of an
    ensemble is the mean of its members' maps; `where` is in the first of them. The model does not change. Raises
    ValueError as `choose` does, for a target without a logit and for a layer without a grid. Raises NotFinite for
    logits or maps that are not finite.
    """
    if len(targets) != len(images):
        raise ValueError(f"{len(targets)} targets for {len(images)} images")
    method = choose(method, model, where, images)
    if isinstance(model, Ensemble):
        members = zip(model.members, _in_each(model, where), strict=True)
        mean = np.mean([class_maps(member, place, images, targets, method) for member, place in members], axis=0)
        return mean / np.maximum(mean.max(axis=(1, 2), keepdims=True), np.finfo(mean.dtype).tiny)
    if method in CAMS:
        maps, size = _activation_maps, batch_size(images.shape[-1])
    else:
        maps, size = _attention_maps, attention.batch_size(model, where, images[:1])
    parts = zip(images.split(size), targets.split(size), strict=True)
    found = np.concatenate([maps(model, where, some, theirs, method) for some, theirs in parts])
    if not np.isfinite(found).all():
        raise NotFinite(f"{method} gives maps that are not finite for images {tuple(images.shape)}")
    return found


def _in_each(model: Ensemble, where: CamTarget) -> list[CamTarget]:
    """For each member, the layer with the same name as the layer of `where`, which is in the first member."""
    layer = _layer_name(model.members[0], where)
    return [CamTarget(member.get_submodule(layer), where.to_grid) for member in model.members]


def _attention_maps(model: nn.Module, where: CamTarget, images: Tensor, targets: Tensor, method: str) -> np.ndarray:
    grids = _scaled(attention.grids(model, where, images, targets, method))
    return _scaled(interpolate(grids, images.shape[2:], mode="bilinear"))[:, 0].cpu().numpy()


def _scaled(grids: Tensor) -> Tensor:
    """`grids` (B, 1, h, w), each scaled to [0, 1]. A grid with equal values everywhere becomes zero."""
    grids = grids - grids.amin((2, 3), keepdim=True)
    return grids / grids.amax((2, 3), keepdim=True).clamp_min(torch.finfo(grids.dtype).tiny)


def _activation_maps(model: nn.Module, where: CamTarget, images: Tensor, targets: Tensor, method: str) -> np.ndarray:
    layer = _layer_name(model, where)
    with untouched(model), torch.inference_mode(False), torch.enable_grad(), _cut(where, model, layer, targets):
        return _run(CAMS[method](model, [where.layer], where.to_grid), images.detach().clone(), targets)


def grid_size(model: nn.Module, where: CamTarget, images: Tensor) -> tuple[int, int]:
    """Height and width (cells) of the maps of `images` before they are scaled up."""
    model = first_of(model)
    with untouched(model), torch.inference_mode():
        output = attention.output_of(where.layer, model, images[:1])
    height, width = _grid(where, _layer_name(model, where), output).shape[2:]
    return height, width


def is_blank(maps: np.ndarray) -> np.ndarray:
    """(B,) bool: whether a map (B, H, W) is zero everywhere: no positive evidence, or equal values everywhere."""
    return (maps == 0).all(axis=(1, 2))


@contextmanager
def _cut(where: CamTarget, model: nn.Module, layer: str, targets: Tensor) -> Iterator[None]:
    """Inside this context, gradients start at `where`, so a backward pass ends there. Every forward pass is checked.

    Enter it before the package places its own hooks: they then get the output of this hook.
    """

    def begin_here(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        _grid(where, layer, output)
        # A copy, because the next layer may work in place, and torch forbids that on a tensor where gradients start.
        begun: Tensor = output.detach().requires_grad_().clone()
        return begun

    def check(module: nn.Module, inputs: Any, answers: Tensor) -> None:
        # Without this check, the package gives a zero map, a wrong map or a printed line.
        if not answers.requires_grad:
            raise ValueError(f"there is no map of this network: its layer {layer} has no part in the logits")
        logits.check(answers, targets)

    handles = [where.layer.register_forward_hook(begin_here), model.register_forward_hook(check)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _grid(where: CamTarget, layer: str, output: Any) -> Tensor:
    """The output of the layer called `layer`, as (B, C, h, w). Raises ValueError if it is not a grid."""
    grid = where.to_grid(output) if where.to_grid and isinstance(output, Tensor) else output
    if isinstance(grid, Tensor) and grid.ndim == 4:
        return grid
    what = tuple(grid.shape) if isinstance(grid, Tensor) else f"a {type(grid).__name__}"
    raise ValueError(f"there is no map of this network: its layer {layer} yields {what}, not (B, C, h, w)")


def _layer_name(model: nn.Module, where: CamTarget) -> str:
    return next(name for name, module in model.named_modules() if module is where.layer)


def _run(cam: BaseCAM, inputs: Tensor, targets: Tensor) -> np.ndarray:
    # Does not use the package's `with`, which prints an IndexError and continues.
    try:
        return cam(inputs, [ClassifierOutputTarget(target) for target in targets.tolist()])
    finally:
        cam.activations_and_grads.release()
