"""Calls a function on many items, in blocks, in worker processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from torch import Generator
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from pipeline.data.quotas import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTH_WORKERS = 1000  # items; starting workers takes longer than processing fewer


class _Blocks(Dataset[Result], Generic[Item, Result]):
    def __init__(self, function: Callable[[Sequence[Item]], Result], items: Sequence[Item], size: int) -> None:
        self.function = function
        self.items = items
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.items) // self.size)

    def __getitem__(self, index: int) -> Result:
        return self.function(self.items[index * self.size : (index + 1) * self.size])


def map_blocks(
    function: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    block_size: int,
    *,
    title: str,
    progress: bool = True,
    worth_workers: int = WORTH_WORKERS,
) -> Iterator[Result]:
    """The results of `function` for each block of `block_size` items, in order, with a progress bar on a terminal.

    If there are `worth_workers` items or more, worker processes call it: one per core, at most one per block.

    Workers are processes, not threads: on small files, threads mostly wait for the interpreter's lock. A bare decoding
    loop over JPEG files of 32x32 px on 2 cores takes 87 us per file in two processes, 177 in one, and 290 in two
    threads. Results travel through a pipe, not through shared memory: a container may have only 64 MB of that.
    """
    blocks = _Blocks(function, items, block_size)
    loader: DataLoader[Result] = DataLoader(
        blocks,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=min(cores(), len(blocks)) if len(items) >= worth_workers else 0,
        generator=Generator(),  # a separate one, so that reading data does not advance the global random state
    )
    # `disable=None`: shown on a terminal only.
    with tqdm(total=len(items), desc=title, unit="file", disable=None if progress else True) as bar:
        for result in loader:
            yield result
            bar.update(min(block_size, len(items) - bar.n))


def _unchanged(block: Result) -> Result:
    return block
