"""Serves a split as batches on the device. Only seed and epoch decide their order and augmentation."""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import numpy as np
import torch
from torch import Generator, Tensor

from pipeline.data import Split, Splits
from pipeline.data.augmentation import Augment, Place, Share, normalise

RESIDENT_SHARE = 0.4  # share of the device's free memory for images; the rest is for model and activations
LEAST_REST = 1 / 8  # share of a batch; fewer last images of an epoch join the batch before them
PIXELS_AT_ONCE = 2**22  # pixels per forward pass or copy to the device: 4,096 images of 32 px, 83 of 224 px


class Batches:
    """Batches of one split's uint8 images. They move to the device once if they fit into it, else batch by batch.

    resident_images: (N, ...) on `device`, served in place of the images, for example their features.
    """

    def __init__(
        self, split: Split, batch_size: int, device: torch.device, resident_images: Tensor | None = None
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.device = device
        self._labels = torch.from_numpy(np.asarray(split.labels)).to(device)
        self._resident = resident_images
        if self._resident is None and device.type == "cuda" and split.nbytes < RESIDENT_SHARE * free_memory(device):
            self._resident = resident(split, device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in the split's order: images (B, 3, H, W) uint8, labels (B,) int64. The last may be smaller."""
        return self.every(1, 0)

    def every(self, step: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every `step`-th of these batches, from batch number `first` on."""
        return self._served(torch.arange(len(self.split)).split(self.batch_size)[first::step])

    def _served(self, blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for block in blocks:
            positions = self._own_positions(block)
            on_device = self._to_device(positions)
            yield self._images(positions, on_device), self._labels[on_device]

    def _own_positions(self, positions: Tensor) -> Tensor:
        """The positions of a batch whose images this process serves."""
        return positions

    def _images(self, positions: Tensor, on_device: Tensor) -> Tensor:
        if self._resident is not None:
            return self._resident[on_device]
        images = torch.from_numpy(self.split.take(positions.numpy()))
        if self.device.type == "cuda":
            images = images.pin_memory()
        return self._to_device(images)

    def _to_device(self, tensor: Tensor) -> Tensor:
        # Only on CUDA may a copy run while this process continues: MPS would read memory that is already reused.
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")


class NormalisedBatches:
    """Normalised batches of a split for a model, in order and without augmentation."""

    def __init__(self, splits: Splits, split: Split, batch_size: int, device: torch.device) -> None:
        self._batches = Batches(split, batch_size, device)
        self._splits = splits

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (B, 3, H, W) float32, labels (B,) int64."""
        return self.every(1, 0)

    def every(self, step: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every `step`-th of these batches, from batch number `first` on, as when several processes share them."""
        for images, labels in self._batches.every(step, first):
            yield normalise(images, self._splits.mean, self._splits.std), labels


class TrainBatches(Batches):
    """Shuffled, augmented batches. The same seed and epoch always give the same bits."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        device: torch.device,
        *,
        seed: int,
        augment: Augment,
        resident_images: Tensor | None = None,
    ) -> None:
        super().__init__(split, batch_size, device, resident_images)
        self._seed = seed
        self._augment = augment
        self._draw = Generator(device)
        first = Generator().manual_seed(derive_seed(seed, "mirrored in the first epoch"))
        self._mirrored = (torch.rand(len(split), generator=first) < 0.5).to(device)
        self._sizes = train_sizes(len(split), batch_size)
        self._rank, self._num_ranks = 0, 1

    def __len__(self) -> int:
        return len(self._sizes)

    def divided(self, rank: int, num_ranks: int) -> Self:
        """A copy that serves only the part of each batch that belongs to process `rank` of `num_ranks`.

        The part has consecutive images, in order. Crops, flips and cutout are the same for each image as in one
        process. Mixup, cutmix, policies and dropout draw from the global random state, which differs between processes.
        """
        mine = copy.copy(self)
        mine._rank, mine._num_ranks = rank, num_ranks
        return mine

    def whole_size(self, number: int) -> int:
        """How many images batch `number` of an epoch has, on all processes together."""
        return self._sizes[number]

    def _own_positions(self, positions: Tensor) -> Tensor:
        return positions[self._share(len(positions)).rows]

    def _share(self, size: int) -> Share:
        start, end = (size * number // self._num_ranks for number in (self._rank, self._rank + 1))
        return Share(start, end, size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches as `augment` returns them, with each image once. `train_sizes` says how large they are.

        This also seeds the global random state, from which mixup and dropout draw. If `done` is not 0, it skips that
        many batches and seeds nothing: `load_random_states` has restored the random states before.
        """
        shuffle = Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        order = torch.randperm(len(self.split), generator=shuffle)
        if not done:
            torch.manual_seed(derive_seed(self._seed, "global", epoch, *self._own_stream()))
            self._draw.manual_seed(derive_seed(self._seed, "augmentation", epoch))
        blocks = order.split(self._sizes)
        for number, (images, labels) in enumerate(self._served(blocks[done:]), done):
            share = self._share(len(blocks[number]))
            positions = blocks[number][share.rows]
            # Alternating flip (Jordan 2024, arXiv:2404.00498): two epochs show every image both ways.
            place = Place(
                epoch - 1 + number / len(self), self._mirrored[self._to_device(positions)] ^ bool(epoch % 2), share
            )
            yield self._augment(images, labels, place, self._draw)

    def random_states(self) -> dict[str, Tensor]:
        """The random states that the rest of the current epoch draws from, as uint8 tensors."""
        states = {"augmentation": self._draw.get_state(), "global": torch.get_rng_state()}
        if self.device.type != "cpu":
            states[self.device.type] = torch.get_device_module(self.device).get_rng_state(self.device)
        return states

    def load_random_states(self, states: Mapping[str, Tensor]) -> None:
        """Restores the result of `random_states`. On another kind of device, that device's streams start anew."""
        torch.set_rng_state(states["global"])
        if self._rank:
            torch.manual_seed(derive_seed(self._seed, "global, resumed", *self._own_stream()))
        if states["augmentation"].shape == self._draw.get_state().shape:
            self._draw.set_state(states["augmentation"])
        else:
            self._draw.manual_seed(derive_seed(self._seed, "augmentation on another device"))
        if self.device.type in states:
            torch.get_device_module(self.device).set_rng_state(states[self.device.type], self.device)

    def _own_stream(self) -> tuple[object, ...]:
        """The part of a seed that only this process has; empty for the first process."""
        return ("rank", self._rank) if self._rank else ()


def train_sizes(num_images: int, batch_size: int) -> list[int]:
    """The sizes of the training batches of an epoch: `batch_size` each, and the rest.

    A rest of less than an eighth of `batch_size` joins the batch before it. Batch norms estimate mean and variance from
    a batch, and a handful of images would put their averages far off at the end of every epoch.
    """
    full, rest = divmod(num_images, batch_size)
    if full and rest < LEAST_REST * batch_size:
        return [batch_size] * (full - 1) + [batch_size + rest]
    return [batch_size] * full + [rest]


def resident(split: Split, device: torch.device) -> Tensor:
    """All images of `split` on `device`, (N, 3, H, W) uint8. They move few at a time: host memory may not hold all."""
    images = torch.empty(len(split), 3, split.image_size, split.image_size, dtype=torch.uint8, device=device)
    few = batch_size(split.image_size, largest=len(split))
    for block, positions in zip(images.split(few), torch.arange(len(split)).split(few), strict=True):
        block.copy_(torch.from_numpy(split.take(positions.numpy())))
    return images


def free_memory(device: torch.device) -> int:
    """Free bytes of a CUDA device, including the bytes that this process reserves for its next tensors."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def batch_size(image_size: int, largest: int = 256) -> int:
    """How many images of `image_size` px a network takes at a time: fewer if they are larger, to bound memory."""
    return max(1, min(largest, PIXELS_AT_ONCE // image_size**2))


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from a hash of `parts`, so that neighbouring seeds give unrelated streams."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
