"""A trained network with everything needed to use it. Its weights file is enough to rebuild it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import softmax
from torch import Tensor, nn

from pipeline import models
from pipeline.data import augmentation
from pipeline.data.batches import batch_size
from pipeline.data.decoder import Interpolation, decode
from pipeline.model_files import checkpoint, stored_calibration
from pipeline.models.ensemble import Ensemble
from pipeline.models.outlines import other_tables, unallocated
from pipeline.params import ModelName, RecipeParams, Resize
from pipeline.results import prediction_sets
from pipeline.settings import message
from pipeline.training.calibration import Calibration, logits_and_features

PerChannel = tuple[float, float, float]
MAX_MEMBERS = 100  # of an ensemble


class Network(BaseModel):
    """The name of an architecture, and its sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ModelName
    options: dict[str, int]


class Member(BaseModel):
    """A network of an ensemble: the training that it comes from, and the temperature that was fitted to it alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    temperature: float = Field(1.0, gt=0)


class Description(BaseModel):
    """Everything needed to use a network except its weights. Unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    network: Network
    image_size: int
    resize: Resize = "crop"  # how an image becomes a square of image_size + 2 * margin px
    interpolation: Interpolation = "bicubic"  # used for scaling; older files lack it and are all bicubic
    margin: int = Field(0, ge=0, le=512)  # px cut off each side after scaling
    classes: tuple[str, ...] = Field(min_length=1)  # in the order of the logits
    mean: PerChannel  # per channel, in [0, 1] units
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    started_from: str | None = None  # the weights that its training started from
    licence: str = ""  # of those
    members: tuple[Member, ...] = Field((), max_length=MAX_MEMBERS)  # of an ensemble; empty for a single network

    @model_validator(mode="after")
    def sizes_are_valid_for_a_training(self) -> Self:
        sizes: dict[str, Any] = {"model": self.network.name, "image_size": self.image_size, "crop_padding": 0}
        RecipeParams(**{**self.network.options, **sizes})
        return self


def parse(described: Any) -> Description:
    """The description in plain data. Raises ValueError with one line if it is not valid."""
    try:
        return Description.model_validate(described)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, each['loc']))} {message(each)}".strip() for each in error.errors())
        raise ValueError("; ".join(problems)) from None


@dataclass(frozen=True)
class Answered:
    """The answers of a classifier for n images. All but probabilities are None if there is no calibration."""

    probabilities: np.ndarray  # (n, C) float64, calibrated if there is a calibration
    unsure: np.ndarray | None = None  # (n,) bool: too little confidence
    distances: np.ndarray | None = None  # (n,) distance from the training images, in feature space
    unlike: np.ndarray | None = None  # (n,) bool: too far from the training images
    sets: np.ndarray | None = None  # (n, C) bool: the classes in the set of each image; None also if there are no sets


@dataclass(frozen=True)
class Classifier:
    """`model` takes normalised images and returns logits in the order of `classes`; see `description` for both."""

    model: nn.Module
    description: Description
    calibration: Calibration | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.description.classes)

    @property
    def temperature(self) -> float:
        """The divisor of the logits that makes probabilities calibrated; 1 if none was fitted."""
        fitted = self.calibration.temperature if self.calibration is not None else None
        return 1.0 if fitted is None else fitted.value

    def wanting(self, most_error: float | Literal["auto"], coverage: float | Literal["auto"]) -> Self:
        """This classifier with another error of sure answers and another coverage of sets, if it has a calibration."""
        if self.calibration is None:
            return self
        return replace(self, calibration=self.calibration.wanting(most_error, coverage))

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8, normalised for the network: float32."""
        return augmentation.normalise(images, self.description.mean, self.description.std)

    def read(self, source: str | BinaryIO) -> np.ndarray:
        """The image in a file, as in training: (3, image_size, image_size) uint8. `source` is a path or an open file.

        Raises ValueError with the reason if the image cannot be read.
        """
        size, margin = self.description.image_size, self.description.margin
        image = decode(source, size + 2 * margin, self.description.resize, self.description.interpolation)
        return image[:, margin : margin + size, margin : margin + size]

    def answer(self, images: np.ndarray, precision: str = "fp32") -> Answered:
        """The answers for images (N, 3, H, W) uint8, computed in `precision` (fp32 or bf16)."""
        where = next(self.model.parameters()).device
        batches = torch.from_numpy(np.ascontiguousarray(images, dtype=np.uint8)).split(batch_size(images.shape[-1]))
        looks = [logits_and_features(self.model, self.normalise(batch.to(where)), precision) for batch in batches]
        logits, features = (np.concatenate(each) for each in zip(*looks, strict=True))
        probabilities = softmax(logits.astype(np.float64) / self.temperature, axis=1)
        if self.calibration is None:
            return Answered(probabilities)
        unsure = probabilities.max(axis=1) < self.calibration.threshold
        distances = self.calibration.familiar.distances(features)
        unlike = self.calibration.familiar.unlike(distances)
        return Answered(probabilities, unsure, distances, unlike, self.calibration.inside(probabilities))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated class probabilities (N, C) float64 of images (N, 3, H, W) uint8."""
        return self.answer(images).probabilities

    def table(self, images: np.ndarray, precision: str = "fp32") -> pd.DataFrame:
        """One row per image: `class`, and the calibrated probability `p/<name>` of every class; see `answer`.

        With a calibration, also `unsure`, whether the probability is below the threshold of the calibration, `unlike`,
        whether the image is unlike the training images, and `set`, a list of the classes in its set, likeliest first.
        """
        answered = self.answer(images, precision)
        table = pd.DataFrame(answered.probabilities, columns=[f"p/{name}" for name in self.classes])
        table.insert(0, "class", np.array(self.classes, dtype=object)[answered.probabilities.argmax(1)])
        if answered.unsure is not None and answered.unlike is not None:
            table.insert(1, "unsure", answered.unsure)
            table.insert(2, "unlike", answered.unlike)
        if answered.sets is not None:
            table.insert(3, "set", list(prediction_sets.named(answered.sets, answered.probabilities, self.classes)))
        return table

    def save(self, path: Path) -> None:
        """Writes a weights file, which `load` reads."""
        tensors, described = self.model.state_dict(), self.description.model_dump(mode="json")
        if self.calibration is not None:
            tensors |= stored_calibration.tensors(self.calibration)
            described |= stored_calibration.described(self.calibration)
        checkpoint.save(path, tensors, described)

    @staticmethod
    def load(path: Path, device: torch.device | None = None) -> "Classifier":
        """The classifier in a weights file, in evaluation mode. Raises ValueError for any other file."""
        tensors, described = checkpoint.load(path)
        state, own = stored_calibration.split(tensors)
        try:
            description = parse(described)
            sizes = {**description.network.options, "image_size": description.image_size}
            one = partial(models.build, description.network.name, num_classes=len(description.classes), **sizes)
            number = len(description.members)
            build = partial(_ensemble, one, number) if number else one
            # The network takes memory only once it is known that the file has exactly its tensors.
            with unallocated():
                model = build()
            if _shapes(model.state_dict()) != _shapes(state) or other_tables(model, state):
                raise ValueError("the network has other tensors")
            models.check_size(description.network.name, description.image_size, batch=2)
            calibration = stored_calibration.parse(own, described)
        except ValueError as error:
            raise ValueError(f"{path}: weights and description do not match ({error})") from None
        where = device or torch.device("cpu")
        if all(name in state for name, _ in model.named_buffers()):
            model.to_empty(device=where)
        else:  # files lack some tables, such as timm's positions: only a built network has them
            with torch.random.fork_rng(devices=[]):
                model = build().to(where)
        model.load_state_dict(state)
        return Classifier(model.eval(), description, calibration)


def _ensemble(build: Callable[[], nn.Module], number: int) -> Ensemble:
    return Ensemble(build() for _ in range(number))


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}
