"""Copies tensors of a device to the CPU with few waits."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PACKED_BYTES = 256 * 2**20  # most memory of the device that one copy takes


def on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """`tensors` on the CPU, in the same memory formats. A tensor that is there already is not copied.

    All others are copied packed: one copy, and so one wait for the device, for each dtype and 256 MiB.
    """
    found = list(tensors)
    for numbers in _packs(tensors):
        flats = [_flat(tensors[number]) for number in numbers]
        pieces = torch.cat(flats).cpu().split([len(flat) for flat in flats])
        for number, piece in zip(numbers, pieces, strict=True):
            found[number] = _unflattened(piece, tensors[number])
    return found


def snapshot(tree: Any) -> Any:
    """A copy of `tree` (nested dicts, lists and tuples of tensors and plain values), with all tensors on the CPU.

    It does not change when the tensors of `tree` do.
    """
    tensors = list(_tensors(tree))
    copies = [copy.clone() if copy is tensor else copy for copy, tensor in zip(on_cpu(tensors), tensors, strict=True)]
    return _replaced(tree, iter(copies))


def is_channels_last(tensor: Tensor) -> bool:
    """Whether `tensor` (B, C, H, W) is channels last, and not contiguous as well."""
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _packs(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """The numbers of the tensors of each copy. A tensor of more than 256 MiB has a copy of its own."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for number, tensor in enumerate(tensors):
        if tensor.device.type != "cpu":
            kinds.setdefault((tensor.device, tensor.dtype), []).append(number)
    for numbers in kinds.values():
        pack, size = list[int](), 0
        for number in numbers:
            if pack and size + tensors[number].nbytes > PACKED_BYTES:
                yield pack
                pack, size = [], 0
            pack.append(number)
            size += tensors[number].nbytes
        yield pack


def _flat(tensor: Tensor) -> Tensor:
    # In memory order, so that nothing is copied before the tensors are packed.
    tensor = tensor.detach()
    return (tensor.permute(0, 2, 3, 1) if is_channels_last(tensor) else tensor).reshape(-1)


def _unflattened(piece: Tensor, like: Tensor) -> Tensor:
    if not is_channels_last(like):
        return piece.view(like.shape)
    batch, channels, height, width = like.shape
    return piece.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping | list | tuple):
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _tensors(value)


def _replaced(tree: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return next(tensors)
    if isinstance(tree, Mapping):
        return {key: _replaced(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_replaced(value, tensors) for value in tree)
    return tree
