"""Contenders in predicting a folder of photos: the step as a user runs it, and each of its two halves alone.

python -m benchmarks.predicting <contender> <folder>   `contest` starts this, and requests laps on standard input

A unit of work is one pass over the folder. `predict` first trains a network on scanned digits.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.laps import Laps
from pipeline import models
from pipeline.data.batches import batch_size
from pipeline.data.decoder import decode as decode_file
from pipeline.training import device

IMAGE_SIZE = 32  # px, for the network
PHOTO = (640, 480)  # px, on the disk


def predict(laps: Laps, folder: Path) -> None:
    """The step `predict` from start to end of its run, with known calibration, including table and contact sheet."""
    from pipeline.__main__ import main
    from pipeline.params import PredictParams
    from pipeline.steps import predict as step

    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "XDG_STATE_HOME": place}
        recipe = ["--experiment", "none", "--dataset", "digits", "--limit_train", "600", "--epochs", "1"]
        assert main(["train", *recipe, "--image_size", str(IMAGE_SIZE), "--max_lr", "0.01"]) == 0
        while True:
            result = step.run(PredictParams(images=str(folder)))
            assert result is not None
            laps(result.metrics["predict/images"])


def decode(laps: Laps, folder: Path) -> None:
    """Only decoding and scaling, in a DataLoader with a worker per core."""
    photos = _Photos(sorted(map(str, folder.rglob("*.jpg"))))
    loader = DataLoader(photos, batch_size(IMAGE_SIZE), num_workers=os.cpu_count() or 1, persistent_workers=True)
    while True:
        laps(sum(len(images) for images in loader))


def forward(laps: Laps, folder: Path) -> None:
    """Only forward passes of the same network, over the same number of images, which are in memory already."""
    where = device.choose("auto")
    network = models.build("resnet18", num_classes=10, image_size=IMAGE_SIZE).to(where).eval()
    num_images = len([*folder.rglob("*.jpg")])
    images = torch.randn(num_images, 3, IMAGE_SIZE, IMAGE_SIZE)
    while True:
        with torch.inference_mode(), device.autocast(where, device.choose_precision("auto", where)):
            for batch in images.split(batch_size(IMAGE_SIZE)):
                network(batch.to(where)).cpu()
        laps(num_images)


class _Photos(Dataset[np.ndarray]):
    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return decode_file(self.paths[index], IMAGE_SIZE)


def write_photos(root: Path, num_photos: int) -> None:
    """Writes JPEG files of 640 x 480 px: blurred shapes with a little noise, as hard to decode as photos."""
    draw = np.random.default_rng(0)
    for number in range(num_photos):
        coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = smooth + draw.integers(-6, 7, smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / f"{number}.jpg", quality=90)


CONTENDERS: dict[str, Callable[[Laps, Path], None]] = {"predict": predict, "decode": decode, "forward": forward}


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](Laps(), Path(sys.argv[2]))
