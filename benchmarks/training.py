"""Contenders in training: the same network, batches, pixels and number format, in loops that people write.

python -m benchmarks.training <contender> <model>   `contest` starts this, and requests laps on standard input
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.laps import Laps
from benchmarks.synthetic import splits
from pipeline import models
from pipeline.data.splits import Splits
from pipeline.params import TrainStepParams
from pipeline.training import device

BATCH, IMAGES, WORKERS, LR = 512, 45_000, 2, 0.01
RECORD_BATCH = 2000  # of https://github.com/KellerJordan/cifar10-airbench, airbench94_muon.py


def pipeline(model: str, laps: Laps, tracking: bool = True, compile: str = "off") -> None:
    """`python -m pipeline train` from the first update on. Its events are recorded in the same way."""
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{Path.cwd()}/mlflow.db", "XDG_STATE_HOME": str(Path.cwd())}
    from pipeline.resume.training_state import checkpointed
    from pipeline.tracking import lifecycle
    from pipeline.training.recipe import Recipe

    params = TrainStepParams(model=model, batch_size=BATCH, optimizer="sgd", max_lr=LR, epochs=1000, compile=compile)
    where = device.choose("auto")
    recipe = Recipe(params, splits(IMAGES), where, device.choose_precision("auto", where))
    training = recipe.one_cycle(LR)
    if not tracking:
        _count(training.events(), laps)
    with lifecycle.start("train", model) as run:
        _count(checkpointed(training, run, params.checkpoint_minutes), laps)


def untracked(model: str, laps: Laps) -> None:
    """The pipeline's loop alone."""
    pipeline(model, laps, tracking=False)


def compiled(model: str, laps: Laps) -> None:
    """The pipeline's loop alone, with compiled updates."""
    pipeline(model, laps, tracking=False, compile="on")


def bare(model: str, laps: Laps, batch_size: int = BATCH) -> None:
    """A tuned loop: bf16 if the hardware has it, channels last, pixels in memory, fused optimizer."""
    where, data = _device(), splits(IMAGES)
    network = _network(model).to(where).to(memory_format=torch.channels_last).train()
    images, labels = _pixels(data, where), torch.from_numpy(data.train.labels).to(where)
    optimizer = torch.optim.SGD(network.parameters(), LR, momentum=0.9, nesterov=True, fused=True)
    while True:
        for batch in torch.randperm(len(images)).to(where).split(batch_size):
            with torch.autocast(where.type, torch.bfloat16, enabled=_has_bf16(where)):
                loss = F.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            laps(len(batch))


def bare_blocks_kept(model: str, laps: Laps) -> None:
    """The same as `bare`, but the memory of large tensors is kept."""
    device.keep_large_blocks()
    bare(model, laps)


def record(model: str, laps: Laps) -> None:
    """The full batch size of the record, with an optimizer that costs less than the record's Muon."""
    bare(model, laps, RECORD_BATCH)


def record_blocks_kept(model: str, laps: Laps) -> None:
    """The same as `record`, but the memory of large tensors is kept."""
    device.keep_large_blocks()
    record(model, laps)


def notebook(model: str, laps: Laps) -> None:
    """The loop of many notebooks: transforms for each image in two workers, float32, a loss read in each update."""
    where = _device()
    network = _network(model).to(where).train()
    optimizer = torch.optim.SGD(network.parameters(), LR, momentum=0.9, nesterov=True)
    losses = []
    while True:
        for batch in _loader():
            images, labels = (tensor.to(where) for tensor in batch)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            laps(len(labels))


def lightning(model: str, laps: Laps) -> None:
    """Lightning with its MLFlowLogger, bf16-mixed if the hardware has it, channels last."""
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.loggers import MLFlowLogger

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = _network(model)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            images, labels = batch
            loss = F.cross_entropy(self.network(images.contiguous(memory_format=torch.channels_last)), labels)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), LR, momentum=0.9, nesterov=True)

    class Clock(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs, batch, index: int) -> None:  # type: ignore[no-untyped-def]
            laps(len(batch[1]))

    where = _device()
    trainer = Trainer(
        accelerator=where.type,
        devices=1,
        max_epochs=1000,
        logger=MLFlowLogger("benchmark", tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db"),
        precision="bf16-mixed" if _has_bf16(where) else "32-true",
        callbacks=[Clock()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module().to(memory_format=torch.channels_last), _loader())


def product(model: str, laps: Laps) -> None:
    """The machine's product of two 2048 x 2048 matrices, in operations: an upper bound for each `model`."""
    where = _device()
    kind = torch.bfloat16 if _has_bf16(where) else torch.float32
    a, b = (torch.randn(2048, 2048, device=where, dtype=kind) for _ in range(2))
    while True:
        for _ in range(50):
            a @ b
        laps(50 * 2 * 2048**3)


CONTENDERS: dict[str, Callable[[str, Laps], None]] = {
    "pipeline": pipeline,
    "untracked": untracked,
    "compiled": compiled,
    "bare": bare,
    "bare_blocks_kept": bare_blocks_kept,
    "record": record,
    "record_blocks_kept": record_blocks_kept,
    "notebook": notebook,
    "lightning": lightning,
    "product": product,
}


class OneByOne(Dataset[tuple[Tensor, int]]):
    """A split as most scripts read it: the transforms are called for each image."""

    def __init__(self, data: Splits) -> None:
        self.images, self.labels = torch.from_numpy(data.train.take(np.arange(len(data.train)))), data.train.labels
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4, padding_mode="reflect"),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


def _loader() -> DataLoader[tuple[Tensor, int]]:
    return DataLoader(
        OneByOne(splits(IMAGES)), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True, drop_last=True
    )


def _count(events: Iterator[object], laps: Laps) -> None:
    for event in events:
        if hasattr(event, "num_images"):
            laps(event.num_images)


def _network(model: str) -> nn.Module:
    network = models.build(model, num_classes=10, image_size=32)
    if models.needs_images(model):
        models.fit_to_images(model, network, _pixels(splits(1000), torch.device("cpu")))
    return network


def _pixels(data: Splits, where: torch.device) -> Tensor:
    images = torch.from_numpy(data.train.take(np.arange(len(data.train))))
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    return ((images / 255 - mean) / std).to(where, memory_format=torch.channels_last)


def _device() -> torch.device:
    """The device that the pipeline chooses. On a CPU, the memory of large tensors is not kept, unlike there."""
    return torch.device(device.available()[0])


def _has_bf16(where: torch.device) -> bool:
    return device.choose_precision("auto", where) == "bf16"


if __name__ == "__main__":
    contender, model = sys.argv[1:]
    torch.manual_seed(0)
    clock = Laps()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        CONTENDERS[contender](model, clock)
