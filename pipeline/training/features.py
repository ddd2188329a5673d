"""Features of a frozen network for each image, computed once and kept in the cache."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from pipeline.data import Split, Splits, cache
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.disk import replacing
from pipeline.models.features import with_layer_inputs
from pipeline.models.stages import head
from pipeline.training.device import autocast

log = logging.getLogger(__name__)


class Features(NamedTuple):
    """The inputs of two layers of a network for N images, averaged over their positions, float32."""

    of_head: np.ndarray  # (N, D)
    of_stage: np.ndarray  # (N, E), of the last stage; E is 0 for a network without one


def of_split(
    model: nn.Module,
    splits: Splits,
    split: Split,
    precision: str,
    identity: str,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """The features of `model` for each image of `split`. Its head is a linear layer.

    The cache keeps the features under `identity` (of network and weights), the images and the number format.
    on_progress: called with the number of images done.
    """
    last = head(model)[1]
    assert isinstance(last, nn.Linear)
    key = hashlib.sha256(
        f"two layers {identity} {split.digest()} {splits.mean} {splits.std} {precision}".encode()
    ).hexdigest()
    file = cache.folder() / "features" / f"{key[:32]}.npy"
    kept = _kept(file, len(split), last.in_features)
    if kept is not None:
        on_progress(len(split))
        return Features(*np.split(kept, [last.in_features], axis=1))
    batches = NormalisedBatches(splits, split, batch_size(split.image_size), next(model.parameters()).device)
    found = _compute(model, batches, precision, on_progress)
    # If the disk is full, the next probe computes the features again; nothing else is lost.
    with suppress(OSError), replacing(file) as path, path.open("wb") as stream:
        np.save(stream, found, allow_pickle=False)
    return Features(*np.split(found, [last.in_features], axis=1))


@torch.inference_mode()
def _compute(
    model: nn.Module, batches: NormalisedBatches, precision: str, on_progress: Callable[[int], None]
) -> np.ndarray:
    model.eval()
    seen, done = [], 0
    for images, labels in batches:
        with autocast(images.device, precision):
            _, of_head, of_stage = with_layer_inputs(model, images)
        seen.append(torch.cat([of_head, of_stage], dim=1).cpu())
        done += len(labels)
        on_progress(done)
    return torch.cat(seen).numpy()


def _kept(file: Path, rows: int, columns: int) -> np.ndarray | None:
    """The features in `file`; None if it does not exist or is damaged."""
    try:
        found = np.load(file, allow_pickle=False)
        fits = found.ndim == 2 and len(found) == rows and found.shape[1] >= columns and found.dtype == np.float32
        return found if fits else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("the cached features in %s are damaged (%s): computing again", file, error)
        return None
