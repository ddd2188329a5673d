"""Images per second of a training epoch, beside the usual loop: a DataLoader, and transforms image by image.

python -m benchmarks.throughput [--name value ...]   any parameter of the step `train`
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from pipeline.data import Split
from pipeline.params import TrainParams
from pipeline.settings import resolve
from pipeline.training import loop
from pipeline.training.assemble import Setup, prepare

WARM_UP_STEPS, SECONDS, WORKERS = 3, 20.0, 2


class OneByOne(Dataset[tuple[Tensor, int]]):
    """A split as most training scripts read it: transforms called for each image."""

    def __init__(self, split: Split, setup: Setup) -> None:
        self.images, self.labels = torch.from_numpy(split.take(np.arange(len(split)))), split.labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(setup.params.image_size, padding=setup.params.crop_padding, padding_mode="reflect"),
                v2.RandomHorizontalFlip(0.5 if setup.splits.flip else 0.0),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(setup.splits.mean, setup.splits.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def main(arguments: list[str]) -> None:
    """Prints images per second of this pipeline and of the peer, same model, optimizer and number format."""
    flags = {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
    params = cast(TrainParams, resolve("train", {"max_lr": "0.01", **flags}))
    setup = prepare(params)
    loader = DataLoader(
        OneByOne(setup.splits.train, setup),
        params.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
    )
    where = setup.device
    moved = ((images.to(where), labels.to(where)) for images, labels in _for_ever(lambda: loader))
    batches = setup.train_batches(params.seed)
    print(f"{params.dataset} {params.model}, batch {params.batch_size}, {setup.precision} on {where}")
    print(f"pipeline: {rate(setup, params, _for_ever(lambda: batches.epoch(0))):,.0f} images/s")
    print(f"DataLoader, transforms image by image: {rate(setup, params, moved):,.0f} images/s")


def rate(setup: Setup, params: TrainParams, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Images per second of training on `batches`, after a warm-up."""
    model = setup.model(params.seed).train()
    optimizer = setup.optimizer(model, 0.01, params.momentum)
    started, num_images = 0.0, 0
    for step, (images, labels) in enumerate(batches):
        if step == WARM_UP_STEPS:
            started = time.perf_counter()
            num_images = 0
        loss, _ = loop.train_step(model, images, labels, optimizer, setup.precision, params.label_smoothing)
        num_images += len(images)
        if step > WARM_UP_STEPS and time.perf_counter() - started > SECONDS:
            loss.item()  # waits for the device, so that its queue counts
            break
    return num_images / (time.perf_counter() - started)


def _for_ever(epoch: Callable[[], Iterable[Any]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from epoch()


if __name__ == "__main__":
    main(sys.argv[1:])
