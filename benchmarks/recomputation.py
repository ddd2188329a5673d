"""Peak memory and processor time of an update, with and without activation checkpointing.

python -m benchmarks.recomputation <network> <on or off>   one process measures one: its peak memory never falls

An update is of SGD in fp32, on 16 random images of 224 px. The first one of three is not timed.
Processor time depends less on other work than time on the clock.
"""

import resource
import sys
import time

import torch

from pipeline import models
from pipeline.training import optimizers, recomputation
from pipeline.training.update import train_step

BATCH, IMAGE_SIZE, CLASSES, UPDATES = 16, 224, 10, 3
MEBI = 2**20


def main(name: str, switch: str) -> None:
    """Prints the peak memory of the process before and after the updates, and the shortest time of an update."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=CLASSES, image_size=IMAGE_SIZE).train()
    model.to(memory_format=torch.channels_last)
    if switch == "on":
        recomputation.recompute(model)
    optimizer = optimizers.build("sgd", model, lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.rand(BATCH, 3, IMAGE_SIZE, IMAGE_SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES
    before, seconds = _peak(), []
    for _ in range(UPDATES):
        started = time.process_time()
        loss, _ = train_step(model, images, labels, optimizer, "fp32", 0.0)
        seconds.append(time.process_time() - started)
    taken = min(seconds[1:])
    print(
        f"{name} {switch}: peak {before:.0f} MiB before, {_peak():.0f} MiB after; {taken:.2f} s; loss {float(loss)!r}"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEBI


if __name__ == "__main__":
    main(*sys.argv[1:])
