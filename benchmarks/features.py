"""Contenders in features of photos: as the step `probe` computes them the first time, and bare loops of PyTorch.

python -m benchmarks.features <contender> <class folders>   as `contest` starts it: laps are asked for on standard input

A lap's unit is one pass over the photos, from JPEG files to what goes into the head of the network that folders of
photos get by default. Its weights are fresh: that changes no cost.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.laps import Laps
from pipeline.data.decoder import crop
from pipeline.params import RecipeParams
from pipeline.training import device, features
from pipeline.training.photo_defaults import BACKBONE
from pipeline.training.recipe import load

IMAGE_SIZE, BATCH = 224, 32  # px; photos per batch of a bare loop (larger batches are no faster)


def probe(laps: Laps, folder: str) -> None:
    """Reads the photos into an empty cache, and computes the features of each part, as the step does."""
    given = {"dataset": "folder", "data_dir": folder, "model": BACKBONE, "weights": "none", "image_size": IMAGE_SIZE}
    params = RecipeParams(**given, batch_size=2, crop_padding=0)
    while True:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            recipe, done = load(params), 0
            splits, model = recipe.splits, recipe.model(params.seed)
            for part in (splits.train, splits.valid, splits.test):
                if part is not None:
                    done += len(features.of_split(model, splits, part, recipe.precision, recipe.backbone).of_head)
        laps(done)


def workers(laps: Laps, folder: str) -> None:
    """Decodes in a DataLoader with a worker per core."""
    photos = _Photos(_files(folder))
    loader = DataLoader(photos, BATCH, num_workers=os.cpu_count() or 1, persistent_workers=True)
    _loop(laps, lambda: iter(loader))


def threads(laps: Laps, folder: str) -> None:
    """Decodes in a thread per core."""
    files = _files(folder)

    def batches() -> Iterator[Tensor]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pixels = pool.map(_pixels, files)
            for start in range(0, len(files), BATCH):
                some = [next(pixels) for _ in files[start : start + BATCH]]
                yield torch.from_numpy(np.stack(some))

    _loop(laps, batches)


def _loop(laps: Laps, batches: Callable[[], Iterator[Tensor]]) -> None:
    """Forward passes over batches of pixels (B, H, W, 3), channels last and in the number format that is fastest."""
    where = device.choose("auto")
    precision = device.choose_precision("auto", where)
    model = timm.create_model(BACKBONE.removeprefix("timm/"), num_classes=0).eval()
    model.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    while True:
        found = []
        with torch.inference_mode(), device.autocast(where, precision):
            for pixels in batches():
                images = pixels.to(where).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
                found.append(model(images).float().cpu())
        laps(len(torch.cat(found)))


def _files(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def _pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (2 * IMAGE_SIZE, 2 * IMAGE_SIZE))
        return np.asarray(crop(image.convert("RGB"), IMAGE_SIZE))


class _Photos(Dataset[np.ndarray]):
    def __init__(self, files: list[str]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        return _pixels(self.files[index])


CONTENDERS: dict[str, Callable[[Laps, str], None]] = {"probe": probe, "workers": workers, "threads": threads}


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]](Laps(), sys.argv[2])
