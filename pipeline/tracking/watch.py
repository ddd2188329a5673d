"""Shows where a network looks while it learns: maps of the same validation images after every epoch.

The training's artifact folder `watch` has N images of S by S pixels (S at most 112):

    index.json      {"images": [{"name", "class"}, N of them], "method": M, "side": S}; M is what suits
                    the network: attention_relevance for a vision transformer, else gradcam
    images.npy      (N, 3, S, S) uint8, RGB
    maps/0001.npy   after epoch 1: (N, S, S) uint8, the evidence for the true class; 255 is the strongest
    watch.gif       the epochs as an animation, at most 60
    images.webp, images.csv, maps.webp, maps.csv    the same epochs as small pictures, and the position of each image
                    and map, for the slider of the report

Each map has its own scale, so the strengths of two maps cannot be compared. A map of zeros is blank.
"""

import logging
import time
from pathlib import Path

import numpy as np
import torch

from pipeline import models
from pipeline.data import augmentation, encoder
from pipeline.explain import attribution
from pipeline.explain.logits import NotFinite
from pipeline.params import TrainParams
from pipeline.progress import say
from pipeline.results import plots, sprite
from pipeline.tracking import store
from pipeline.tracking.run import Run
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training

log = logging.getLogger(__name__)

FOLDER = "watch"
LARGEST_SIDE = 112  # px
MAX_FRAMES = 60  # of animation and slider; if there are more epochs, they are thinned out evenly
FRAME_SECONDS = 0.4


class Watch:
    """Makes maps of the network of a training after each epoch, without changing the network."""

    def __init__(self, run: Run, recipe: Recipe, training: Training) -> None:
        """If the training is resumed, it starts with the maps that `run` has stored."""
        params, splits = recipe.params, recipe.splits
        assert isinstance(params, TrainParams)
        assert splits.valid is not None
        positions = _spread(splits.valid.labels, params.watch_images)
        images, labels = splits.valid.take(positions), splits.valid.labels[positions]
        self._run = run
        self._model = training.evaluated
        self._where = models.cam_target(params.model, self._model)
        self._inputs = augmentation.normalise(torch.from_numpy(images).to(recipe.device), splits.mean, splits.std)
        self._targets = torch.from_numpy(labels)
        self._method = attribution.choose(attribution.AUTO, self._model, self._where, self._inputs)
        self._step = -(-images.shape[-1] // LARGEST_SIDE)  # every how many px one px is kept
        self._images = images[..., :: self._step, :: self._step]
        self._epochs = params.epochs
        self._seconds = 0.0
        self._maps = _kept(run.id, len(training.log.epochs), self._images[:, 0].shape)
        self._named = [
            {"name": splits.valid.names[position], "class": splits.classes[label]}
            for position, label in zip(positions, labels, strict=True)
        ]
        if not training.log.epochs:
            run.array(f"{FOLDER}/images.npy", self._images)
            index = {"images": self._named, "method": self._method, "side": self._images.shape[-1]}
            run.json(f"{FOLDER}/index.json", index)

    def __call__(self, epoch: int) -> None:
        """Stores the maps of the network after `epoch`. If its logits are not finite, it stores none."""
        started = time.perf_counter()
        try:
            maps = attribution.class_maps(self._model, self._where, self._inputs, self._targets, self._method)
        except NotFinite as error:  # the training itself reports where it diverged
            say(f"no maps of epoch {epoch}: {error}")
            return
        self._maps[epoch] = np.rint(255 * maps[:, :: self._step, :: self._step]).astype(np.uint8)
        self._run.array(f"{FOLDER}/maps/{epoch:04}.npy", self._maps[epoch])
        self._seconds += time.perf_counter() - started

    def conclude(self, folder: Path, train_seconds: float) -> None:
        """Logs the animation, made in `folder`, and the slider. Prints the time spent relative to `train_seconds`."""
        if not self._maps:
            return
        started = time.perf_counter()
        epochs = sorted(self._maps)
        taken = np.unique(np.linspace(0, len(epochs) - 1, min(MAX_FRAMES, len(epochs))).round().astype(int))
        shown = [epochs[position] for position in taken]
        frames = [plots.watched(self._images, self._maps[epoch] / 255) for epoch in shown]
        path = folder / "watch.gif"
        encoder.write_gif(path, frames, [f"epoch {epoch} of {self._epochs}" for epoch in shown], FRAME_SECONDS)
        self._run.file(path, f"{FOLDER}/{path.name}")
        kept = {epoch: self._maps[epoch] for epoch in shown}
        for name, (content, table) in sprite.slider_files(self._images, self._named, kept).items():
            self._run.bytes(f"{FOLDER}/{name}.webp", content)
            self._run.table(f"{FOLDER}/{name}.csv", table)
        self._seconds += time.perf_counter() - started
        cost = self._seconds / train_seconds
        say(f"watched {len(self._images)} images: {self._seconds:.1f} s, {cost:.1%} of the training's time")


def _spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions (`count`,), spread evenly over the classes; all positions if there are fewer."""
    order = np.argsort(labels, kind="stable")
    return order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]


def _kept(run_id: str, num_epochs: int, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
    """The stored maps of a run's first epochs, by epoch. Damaged maps are skipped with a warning."""
    if not num_epochs:
        return {}
    with store.scratch() as folder:
        try:
            files = sorted(store.artifact(run_id, f"{FOLDER}/maps", folder).glob("*.npy"))
        except ValueError as error:
            log.warning("the maps of the earlier epochs are missing: %s", error)
            return {}
        found = {int(path.stem): _read(path, shape) for path in files if path.stem.isdecimal()}
    return {epoch: maps for epoch, maps in found.items() if maps is not None and 0 < epoch <= num_epochs}


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        maps = np.load(path, mmap_mode="r", allow_pickle=False)
        if maps.shape == shape and maps.dtype == np.uint8:
            return np.array(maps)
        reason = f"of shape {maps.shape}"
    except (OSError, ValueError, EOFError) as error:
        reason = store.first_line(error)
    log.warning("the maps in %s are damaged (%s) and left out", path.name, reason)
    return None
