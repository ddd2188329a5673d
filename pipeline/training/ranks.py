"""One training on several devices: what its processes, the ranks that torchrun starts, share and how they agree."""

import atexit
import gc
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pipeline.data.batches import NormalisedBatches, train_sizes
from pipeline.training.synced_norm import synchronise

WAITING = timedelta(hours=6)  # long, because rank 0 runs the range test alone; a rank that ends is noticed at once
LEAST_SHARE = 2  # images of a batch per rank: batch norms need two


@dataclass(frozen=True)
class Ranks:
    """This process, `number`, among the `size` processes of one training. Alone, every method does nothing."""

    number: int = 0
    size: int = 1
    shards: ClassVar[bool] = False  # whether each holds only a part of the weights and of the optimizer's state

    def parallel(self, network: nn.Module) -> nn.Module:
        """`network` such that a backward pass leaves the mean of the ranks' gradients in each of them."""
        if self.size == 1:
            return network
        where = next(network.parameters()).device
        # Norms that are not synchronised differ between ranks until `average`, which comes before their first use.
        ids = None if where.type == "cpu" else [where]
        return DistributedDataParallel(network, device_ids=ids, forward_sync_buffers=False)

    def gathered(self, network: nn.Module) -> AbstractContextManager[None]:
        """Inside this context, each rank has all weights of `network`."""
        return nullcontext()

    def whole(self, state: Any) -> Any:
        """`state`, a tree of tensors, with the parts of all ranks."""
        return state

    def ask_for_state(self, wanted: bool) -> bool:
        """Whether rank 0 wants the other ranks' parts of the state. `wanted` is True in rank 0 if it does."""
        return False

    def part_of_mean(self, weight: Tensor | int, whole: int | None) -> Tensor | float:
        """The factor on this rank's mean loss that makes the mean over the ranks the mean over all images.

        weight: the weight of this rank's images together. whole: the sum of the weights of all ranks; with None, the
        ranks add them up.
        """
        if self.size == 1:
            return 1.0
        if whole is None:
            assert isinstance(weight, Tensor)
            return weight * self.size / self.sum(weight)
        return weight * self.size / whole

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value` over the ranks."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the ranks."""
        return value if self.size == 1 else self.sum(value) / self.size

    def average(self, *modules: nn.Module) -> None:
        """Sets the running statistics of `modules` to their mean over the ranks."""
        if self.size > 1:
            for buffer in (each for module in modules for each in module.buffers() if each.is_floating_point()):
                buffer.copy_(self.mean(buffer))

    def share(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that this rank evaluates: every `size`-th, so that each image counts once."""
        if isinstance(batches, NormalisedBatches):
            return batches.every(self.size, self.number)
        return islice(iter(batches), self.number, None, self.size)

    def agree(self, value: Any) -> Any:
        """The `value` of rank 0, in every rank."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared)
        return shared[0]

    def check_equal(self, what: str, value: str) -> None:
        """Raises ValueError in every rank if `value` differs between ranks."""
        found: list[Any] = [None] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
            if len(set(found)) > 1:
                raise ValueError(f"{what} differs between the ranks of the training: {', '.join(map(str, found))}")


ALONE = Ranks()


def started() -> Ranks:
    """The ranks that torchrun has started, by the variables that it sets; ALONE without torchrun."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def local_number() -> int:
    """The number of this rank on its machine, which chooses its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarts() -> int:
    """How often torchrun has started the ranks again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def join(ranks: Ranks) -> None:
    """Connects this process with the other ranks: gloo for values on the CPU, nccl for those on GPUs."""
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, number, size = next(rendezvous("env://", timeout=WAITING))
    assert (number, size) == (ranks.number, ranks.size)
    # torchrun's store still has the addresses of ranks from before a restart.
    attempt = dist.PrefixStore(f"attempt {restarts()}", store)
    dist.init_process_group(backend, store=attempt, rank=number, world_size=size, timeout=WAITING)


def leave() -> None:
    """Ends the connection."""
    if dist.is_initialized():
        dist.destroy_process_group()
        atexit.register(gc.collect)  # torch may abort a process if networks of its ranks are freed at the very end


def check_shares(batch_size: int, num_images: int, size: int) -> None:
    """Raises ValueError if `size` ranks cannot share the batches of `batch_size` of an epoch of `num_images`."""
    if batch_size % size:
        raise ValueError(
            f"batch_size={batch_size}: {size} devices cannot share it; give a multiple of {size}, such as "
            f"{-(-batch_size // size) * size}"
        )
    last = train_sizes(num_images, batch_size)[-1]
    if last < LEAST_SHARE * size:
        raise ValueError(
            f"batch_size={batch_size}: the last batch of an epoch has {last} of {num_images} images, and {size} "
            f"devices need {LEAST_SHARE * size} or more; give another batch_size or limit_train"
        )


def divided(training: Any, ranks: Ranks, syncs_norms: bool) -> Any:
    """`training`, shared by `ranks`. Its results equal the results on one device, up to the order of sums.

    syncs_norms: batch norms see the whole batch. Otherwise each rank normalises its share by itself.
    """
    if ranks.size == 1:
        return training
    if syncs_norms:
        synchronise(training.model)
    return replace(training, ranks=ranks, batches=training.batches.divided(ranks.number, ranks.size))
