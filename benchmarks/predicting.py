"""Contenders in predicting a folder of photos: the step as a user runs it, and each of its two halves alone.

python -m benchmarks.predicting <contender> <folder> [class folders]   `contest` starts this, and requests laps on
standard input

A unit of work is one pass over the folder. `predict` first trains a network on scanned digits at 32 px. If class
folders are given, it fits a probe to some of their photos instead, with the default network for folders of photos.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.laps import Laps
from pipeline import models
from pipeline.data.batches import batch_size
from pipeline.data.cache import folder as cache_folder
from pipeline.data.decoder import decode as decode_file
from pipeline.training import device
from pipeline.training.photo_defaults import BACKBONE

PHOTO = (640, 480)  # px, on the disk
CLASSES = 10  # of the generated photos
LEARNED_FROM = 160  # photos at most, to which a probe is fitted


@dataclass(frozen=True)
class Setting:
    """The photos, and the network that predicts their classes."""

    photos: list[str]
    model: str
    image_size: int  # px, for the network
    training: tuple[str, ...]  # the command that trains it

    @classmethod
    def of(cls, folder: str, class_folders: str = "") -> "Setting":
        """The photos below `folder`, and a network that learns from `class_folders` or, without them, from digits."""
        photos = sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if not class_folders:
            recipe = (
                "train --experiment none --dataset digits --limit_train 600 --epochs 1 --max_lr 0.01 --image_size 32"
            )
            return cls(photos, "resnet18", 32, tuple(recipe.split()))
        recipe = f"probe --dataset folder --limit_train {LEARNED_FROM} --batch_size 2 --data_dir"
        return cls(photos, BACKBONE, 224, (*recipe.split(), class_folders))


def predict(laps: Laps, folder: str, class_folders: str = "") -> None:
    """The step `predict` from start to end of its run, including table and contact sheet."""
    from pipeline.__main__ import main
    from pipeline.params import PredictParams
    from pipeline.steps import predict as step

    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        weights = cache_folder() / "weights"  # weights that the user has put there
        os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "XDG_STATE_HOME": place}
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        share_weights(weights)
        assert main(list(Setting.of(folder, class_folders).training)) == 0
        while True:
            result = step.run(PredictParams(images=folder))
            assert result is not None
            laps(result.metrics["predict/images"])


def share_weights(weights: Path) -> None:
    """Links the folder `weights` into the cache of the current XDG_CACHE_HOME."""
    cache_folder().mkdir(parents=True)
    (cache_folder() / "weights").symlink_to(weights)


def decode(laps: Laps, folder: str, class_folders: str = "") -> None:
    """Only decoding and scaling, in a DataLoader with a worker per core."""
    setting = Setting.of(folder, class_folders)
    photos = _Photos(setting.photos, setting.image_size)
    loader = DataLoader(
        photos, batch_size(setting.image_size), num_workers=os.cpu_count() or 1, persistent_workers=True
    )
    while True:
        laps(sum(len(images) for images in loader))


def forward(laps: Laps, folder: str, class_folders: str = "") -> None:
    """Only forward passes of the same network, over the same number of images, which are in memory already."""
    setting, where = Setting.of(folder, class_folders), device.choose("auto")
    network = models.build(setting.model, num_classes=10, image_size=setting.image_size).eval()
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(len(setting.photos), 3, setting.image_size, setting.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    while True:
        with torch.inference_mode(), device.autocast(where, device.choose_precision("auto", where)):
            for batch in images.split(batch_size(setting.image_size)):
                network(batch.to(where)).cpu()
        laps(len(images))


class _Photos(Dataset[np.ndarray]):
    def __init__(self, paths: list[str], image_size: int) -> None:
        self.paths = paths
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return decode_file(self.paths[index], self.image_size)


def write_photos(root: Path, num_photos: int) -> None:
    """Writes JPEG files of 640 x 480 px into class folders: blurred shapes with noise, as hard to decode as photos."""
    draw = np.random.default_rng(0)
    for number in range(num_photos):
        coarse = draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = smooth + draw.integers(-6, 7, smooth.shape, dtype=np.int16)
        folder = root / f"{number % CLASSES}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)


CONTENDERS: dict[str, Callable[..., None]] = {"predict": predict, "decode": decode, "forward": forward}


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](Laps(), *sys.argv[2:])
