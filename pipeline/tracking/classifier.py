"""A trained network with all it takes to use it: its weights file alone rebuilds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline import models
from pipeline.data import augment
from pipeline.data.batches import batch_size
from pipeline.data.decode import decode
from pipeline.models.outlines import other_tables
from pipeline.tracking import checkpoint, description
from pipeline.tracking.description import Description


@dataclass(frozen=True)
class Classifier:
    """`model` takes images normalised with `mean` and `std`; its outputs are logits of `classes`, in their order."""

    model: nn.Module
    description: Description

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the logits."""
        return list(self.description.classes)

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 as the network takes them, float32."""
        return augment.normalise(images, self.description.mean, self.description.std)

    def read(self, source: str | BinaryIO) -> np.ndarray:
        """The image in a file, by its path or open, as in training: (3, image_size, image_size) uint8.

        Raises ValueError that says why for what cannot be read.
        """
        told = self.description
        size, margin = told.image_size, told.margin
        image = decode(source, size + 2 * margin, told.resize, told.interpolation)
        return image[:, margin : margin + size, margin : margin + size]

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Class probabilities (N, C) float32 of images (N, 3, H, W) uint8."""
        where = next(self.model.parameters()).device
        pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.uint8))
        batches = pixels.split(batch_size(pixels.shape[-1]))
        return torch.cat([self.model(self.normalise(batch.to(where))).softmax(1).cpu() for batch in batches]).numpy()

    def table(self, images: np.ndarray) -> pd.DataFrame:
        """One row per image: `class`, and the probability `p/<name>` of every class."""
        probabilities = self.probabilities(images)
        table = pd.DataFrame(probabilities, columns=[f"p/{name}" for name in self.classes])
        table.insert(0, "class", np.array(self.classes, dtype=object)[probabilities.argmax(1)])
        return table

    @staticmethod
    def load(path: Path, device: torch.device | None = None) -> "Classifier":
        """The classifier a weights file holds, in evaluation mode. Raises ValueError for another file."""
        state, described = checkpoint.load(path)
        try:
            told = description.parse(described)
            # Without memory, until it is known that the file holds all of it and no more.
            model = models.outline(
                told.network.name,
                num_classes=len(told.classes),
                **{**told.network.options, "image_size": told.image_size},
            )
            if _shapes(model.state_dict()) != _shapes(state) or other_tables(model, state):
                raise ValueError("other tensors than those of such a network")
            models.check_size(told.network.name, told.image_size, batch=2)
        except ValueError as error:
            raise ValueError(f"{path}: weights and description do not fit ({error})") from None
        model.to_empty(device=device or torch.device("cpu")).load_state_dict(state)
        return Classifier(model.eval(), told)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
