"""Contenders in augmentation, evaluation and explanation: the pipeline, and the usual ways.

python -m benchmarks.parts <contender>   `contest` starts this, and requests laps on standard input
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from benchmarks.laps import Laps
from benchmarks.synthetic import splits
from benchmarks.training import BATCH, WORKERS, OneByOne
from pipeline import models
from pipeline.data import augmentation
from pipeline.data.batches import NormalisedBatches
from pipeline.explain import attribution
from pipeline.training import device
from pipeline.training.update import predict

EXPLAINED = 64


def augment_batches(laps: Laps) -> None:
    """Crops, flips and normalises whole batches, as the pipeline does."""
    device.choose("cpu")
    data = splits(10_000)
    draw = Generator().manual_seed(0)
    while True:
        for rows in torch.randperm(len(data.train)).split(BATCH):
            images = augmentation.random_crop(torch.from_numpy(data.train.take(rows.numpy())), 4, draw)
            laps(len(augmentation.normalise(augmentation.random_flip(images, draw), data.mean, data.std)))


def augment_one_by_one(laps: Laps) -> None:
    """torchvision's transforms for each image, in a DataLoader of two workers."""
    loader = DataLoader(OneByOne(splits(10_000)), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    while True:
        for images, _ in loader:
            laps(len(images))


def evaluate(laps: Laps) -> None:
    """`loop.predict` over a test split of 2,048 images, resnet18."""
    where = device.choose("cpu")
    network, data = _resnet18(), splits(2048)
    while True:
        logits, _ = predict(network, NormalisedBatches(data, data.test, BATCH, where), _precision(where))
        laps(len(logits))


def forward(laps: Laps) -> None:
    """Only forward passes of the same network, over the same number of pixels, which are in memory already."""
    where = device.choose("cpu")
    network, data = _resnet18(), splits(2048)
    pixels = augmentation.normalise(torch.from_numpy(data.test.take(np.arange(2048))), data.mean, data.std)
    while True:
        with torch.inference_mode(), device.autocast(where, _precision(where)):
            for batch in pixels.split(BATCH):
                network(batch)
        laps(len(pixels))


def explain(laps: Laps) -> None:
    """Grad-CAM maps of 64 images, computed as in the step `explain`."""
    device.choose("cpu")
    network, images = _resnet18(), _some_images()
    target = models.cam_target("resnet18", network)
    while True:
        attribution.class_maps(network, target, images, torch.zeros(EXPLAINED, dtype=torch.int64), "gradcam")
        laps(EXPLAINED)


def grad_cam_one_by_one(laps: Laps) -> None:
    """Grad-CAM maps from the package pytorch-grad-cam, called for each image."""
    network, images = _resnet18(), _some_images()
    while True:
        with GradCAM(model=network, target_layers=[network.layer4]) as cam:
            for image in images:
                cam(input_tensor=image[None], targets=[ClassifierOutputTarget(0)])
        laps(EXPLAINED)


CONTENDERS: dict[str, Callable[[Laps], None]] = {
    "augment_batches": augment_batches,
    "augment_one_by_one": augment_one_by_one,
    "evaluate": evaluate,
    "forward": forward,
    "explain": explain,
    "grad_cam_one_by_one": grad_cam_one_by_one,
}


def _resnet18() -> torch.nn.Module:
    torch.manual_seed(0)
    return models.build("resnet18", num_classes=10, image_size=32).to(memory_format=torch.channels_last).eval()


def _some_images() -> Tensor:
    data = splits(EXPLAINED)
    return augmentation.normalise(torch.from_numpy(data.train.take(np.arange(EXPLAINED))), data.mean, data.std)


def _precision(where: torch.device) -> str:
    return device.choose_precision("auto", where)


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](Laps())
