"""Features of a frozen network: the input of its head for each image, computed once and kept in the cache."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data import Split, Splits, cache
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.disk import replacing
from pipeline.models.stages import head
from pipeline.training.device import autocast

log = logging.getLogger(__name__)


def of_split(
    model: nn.Module,
    splits: Splits,
    split: Split,
    precision: str,
    identity: str,
    look: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """The input of the head of `model` for each image of `split`, (N, D) float32.

    The head is a linear layer. The cache keeps the features under `identity` (of network and weights), the images and
    the number format. look: called with the number of images done.
    """
    last = head(model)[1]
    assert isinstance(last, nn.Linear)
    key = hashlib.sha256(f"{identity} {split.digest()} {splits.mean} {splits.std} {precision}".encode()).hexdigest()
    file = cache.folder() / "features" / f"{key[:32]}.npy"
    kept = _kept(file, len(split), last.in_features)
    if kept is not None:
        look(len(split))
        return kept
    batches = NormalisedBatches(splits, split, batch_size(split.image_size), next(model.parameters()).device)
    found = _compute(model, last, batches, precision, look)
    # If the disk is full, the next probe computes the features again; nothing else is lost.
    with suppress(OSError), replacing(file) as path, path.open("wb") as stream:
        np.save(stream, found, allow_pickle=False)
    return found


@torch.inference_mode()
def _compute(
    model: nn.Module, last: nn.Linear, batches: NormalisedBatches, precision: str, look: Callable[[int], None]
) -> np.ndarray:
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().flatten(1).cpu()))
    model.eval()
    done = 0
    try:
        for images, labels in batches:
            with autocast(images.device, precision):
                model(images)
            done += len(labels)
            look(done)
    finally:
        handle.remove()
    return torch.cat(seen).numpy()


def _kept(file: Path, rows: int, columns: int) -> np.ndarray | None:
    try:
        found = np.load(file, allow_pickle=False)
        return found if found.shape == (rows, columns) and found.dtype == np.float32 else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("the cached features in %s are damaged (%s): computing again", file, error)
        return None
