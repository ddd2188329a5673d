"""Measures what a network costs before it sees an image."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from pipeline.data import quotas
from pipeline.data.batches import free_memory
from pipeline.training import recomputation
from pipeline.training.calibration import logits_and_features
from pipeline.training.device import HALF

TURNS = 5  # timed batches of each model


def measure(model: nn.Module, image_size: int) -> dict[str, float]:
    """`flops` of a forward pass and `parameters`, and for a transformer `tokens`. Per image of `image_size` px.

    A multiplication and an addition count as two, as in PyTorch's counter. Only products count.
    """
    device = next(model.parameters()).device
    images = torch.empty(2, 3, image_size, image_size, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    costs = {
        "flops": counter.get_total_flops() / len(images),
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
    }
    tokens = getattr(model, "seq_length", None)
    return costs if tokens is None else {**costs, "tokens": float(tokens)}


def seconds_per_image(models: Sequence[nn.Module], images: Tensor, precision: str) -> list[float]:
    """The shortest time of each model for an answer, in s, in a few batches `images` (B, 3, H, W), as models take them.

    The models take turns, so that other work on the machine slows all of them. The first turn is not counted, because
    the device prepares its kernels then.
    """
    turns = []
    for _ in range(1 + TURNS):
        seconds = []
        for model in models:
            started = time.perf_counter()
            logits_and_features(model, images, precision)  # ends when the answers are off the device
            seconds.append((time.perf_counter() - started) / len(images))
        turns.append(seconds)
    return [min(each) for each in zip(*turns[1:], strict=True)]


COUNTED_WITH = 2  # images; batch norms need at least two to train
WORTH_COUNTING = 2**21  # px in a batch: 512 images of 64 px
SHARE = 0.7  # of the free memory, for activations: gradients and the like need room too
GIBI = 2**30


def shortage(
    model: nn.Module,
    batch_size: int,
    image_size: int,
    device: torch.device,
    precision: str,
    accumulate: int,
    recomputes: bool,
) -> str:
    """Advice if `device` has no room for an update of `model`, an outline in training mode; else empty."""
    free = _free(device)
    if free is None:
        return ""
    bytes_per_image = kept(model, image_size, precision, recomputes) / accumulate
    needed = bytes_per_image * batch_size
    if needed <= free:
        return ""
    fits = max(1, int(SHARE * free / bytes_per_image))
    return (
        f"batch_size={batch_size} of {image_size} px keeps some {needed / GIBI:.0f} GiB for an update, and "
        f"{free / GIBI:.0f} GiB are free: the system may end this process without a word; "
        f"batch_size={fits} has room, or give "
        f"{'' if recomputes else 'checkpoint_activations=on or '}a larger accumulate"
    )


def kept(model: nn.Module, image_size: int, precision: str, recomputes: bool = False) -> int:
    """Bytes of activations that an update of `model`, an outline in training mode, keeps for each image.

    recomputes: the backward pass computes the blocks again, so at most one of them has its activations at a time.
    """
    weights = {_storage(tensor) for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[nn.Module | None, dict[int, int]] = {None: {}}  # by the block that keeps it
    block: nn.Module | None = None
    alive: list[Tensor] = []  # so that no tensor reuses the memory of another

    def keep(tensor: Tensor) -> Tensor:
        alive.append(tensor)
        if tensor.is_meta and _storage(tensor) not in weights:
            found.setdefault(block, {})[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal block
        for tensor in filter(torch.is_tensor, inputs if module.training else ()):
            keep(tensor)
        block = module

    def leave(*_: Any) -> None:
        nonlocal block
        block = None

    for each in recomputation.blocks(model) if recomputes else ():
        each.register_forward_pre_hook(enter)
        each.register_forward_hook(leave)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.empty(COUNTED_WITH, 3, image_size, image_size, device="meta"))
    outside, *of_blocks = (sum(sizes.values()) for sizes in found.values())
    # Under autocast, nearly all activations take half the bytes.
    return (outside + max(of_blocks, default=0)) // COUNTED_WITH // (2 if precision in HALF else 1)


def _free(device: torch.device) -> int | None:
    """Bytes of free memory on `device`; None if that is not known."""
    if device.type == "cuda":
        return free_memory(device)
    return quotas.free_memory() if device.type == "cpu" else None


def _storage(tensor: Tensor) -> int:
    """A number that identifies the memory of `tensor`. Its views have the same."""
    return int(tensor.untyped_storage()._cdata)
