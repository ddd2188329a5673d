"""Exports a classifier to one file for other programs: uint8 images in, answers out, no code of this project."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pipeline.model_files.classifier import Classifier
from pipeline.models.features import joined, with_layer_inputs

IMAGES, BATCH = "images", "batch"  # names in the file
PROBABILITIES, MARKS, IN_SET = "probabilities", ("unsure", "unlike"), "in_set"  # names of the outputs
MAX_ONNX_BYTES = 2**31 - 2**20  # of weights: the format allows files below 2 GiB
TOLERANCE = 1e-3  # for a probability; rounding changes it by about 1e-7

Predict = Callable[[np.ndarray], np.ndarray]


class Portable(nn.Module):
    """A classifier from images (N, 3, H, W) uint8 to calibrated probabilities (N, C).

    If it has a calibration, also to MARKS, (N,) bool each: see `Classifier.table`. If it has sets of classes, also to
    IN_SET, whether each class is in the set of each image, (N, C) bool.
    """

    mean: Tensor
    std: Tensor
    means: Tensor
    directions: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier.model
        self.temperature = classifier.temperature
        # For pixels from 0 to 255.
        self.register_buffer("mean", 255 * torch.tensor(classifier.description.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(classifier.description.std).view(3, 1, 1))
        self.calibration = classifier.calibration
        if self.calibration is not None:
            familiar = self.calibration.familiar
            self.register_buffer("means", torch.from_numpy(familiar.means).double())
            self.register_buffer("directions", torch.from_numpy(familiar.directions).double())
        self.eval()

    @property
    def outputs(self) -> list[str]:
        """The names of the results, in their order."""
        if self.calibration is None:
            return [PROBABILITIES]
        return [PROBABILITIES, *MARKS, *([] if self.calibration.known_sets is None else [IN_SET])]

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        pixels = (images.float() - self.mean) / self.std
        if self.calibration is None:
            return self.model(pixels).softmax(1)
        logits, of_head, of_stage = with_layer_inputs(self.model, pixels)
        probabilities = (logits / self.temperature).softmax(1)
        unsure = probabilities.max(1).values < self.calibration.threshold
        unlike = ~(self._distances(joined(of_head, of_stage)) <= self.calibration.familiar.limit)  # also true for NaN
        if (sets := self.calibration.known_sets) is None:
            return probabilities, unsure, unlike
        likeliest = one_hot(probabilities.argmax(1), probabilities.shape[1]).bool()
        return probabilities, unsure, unlike, (probabilities >= sets.threshold) | likeliest

    def _distances(self, features: Tensor) -> Tensor:
        """The distances of `Familiar.distances`, computed by torch."""
        assert self.calibration is not None
        exact = features.double()
        taken_off = _squares(exact @ self.directions, self.means @ self.directions)
        squares = self.calibration.familiar.scale * _squares(exact, self.means) - taken_off
        return squares.min(1).values.clamp(min=0).sqrt()


def _squares(points: Tensor, centres: Tensor) -> Tensor:
    """The squared Euclidean distances (N, K) of `points` (N, D) from `centres` (K, D), without an array (N, K, D)."""
    return points.square().sum(1, keepdim=True) - 2 * points @ centres.T + centres.square().sum(1)


@dataclass(frozen=True)
class Format:
    """A file format: `write` returns the version of its language, `load` returns a function that runs the file."""

    suffix: str
    write: Callable[[Portable, Tensor, Path, Mapping[str, str]], str]
    load: Callable[[Path], Predict]


def write(classifier: Classifier, form: str, path: Path, metadata: Mapping[str, str]) -> str:
    """Writes `classifier`, which must be on the CPU, to `path` in a form of FORMATS. Returns the language's version.

    The file takes batches of any size. Its metadata are `classes` (a JSON list), `image_size` (px), `resize`,
    `interpolation` and `margin` (see `Description`), and `metadata`. Raises ValueError if the weights are too large.
    """
    described, size = classifier.description, classifier.description.image_size
    scaled = {"resize": described.resize, "interpolation": described.interpolation, "margin": str(described.margin)}
    properties = {"classes": json.dumps(classifier.classes), "image_size": str(size), **scaled, **metadata}
    # Two images, because with one the exporter would fix the batch size to 1.
    return FORMATS[form].write(Portable(classifier), torch.zeros(2, 3, size, size, dtype=torch.uint8), path, properties)


def difference(classifier: Classifier, form: str, path: Path, images: np.ndarray) -> float:
    """The largest difference between probabilities of the file and of `classifier`, for images (N, 3, H, W) uint8.

    The file runs on all images at once and on the first one alone, so that a fixed batch size is noticed.
    """
    predict, expected = FORMATS[form].load(path), classifier.probabilities(images)
    batches = ((images, expected), (images[:1], expected[:1]))
    return float(np.max([np.abs(predict(some) - wanted).max() for some, wanted in batches]))  # NaN if any is NaN


def _write_onnx(model: Portable, images: Tensor, path: Path, metadata: Mapping[str, str]) -> str:
    num_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    if num_bytes > MAX_ONNX_BYTES:
        raise ValueError(f"format=onnx: weights of {num_bytes / 1e9:.1f} GB do not fit in one file: use torch_export")
    program = torch.onnx.export(
        model,
        (images,),
        input_names=[IMAGES],
        output_names=model.outputs,
        dynamic_shapes={IMAGES: {0: BATCH}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)
    return f"opset {program.model.opset_imports['']}"


def _load_onnx(path: Path) -> Predict:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([PROBABILITIES], {IMAGES: images})[0]


def _write_torch_export(model: Portable, images: Tensor, path: Path, metadata: Mapping[str, str]) -> str:
    program = torch.export.export(model, (images,), dynamic_shapes={IMAGES: {0: torch.export.Dim(BATCH)}})
    torch.export.save(program, path, extra_files=dict(metadata))
    return f"torch {torch.__version__}"


def _load_torch_export(path: Path) -> Predict:
    model = torch.export.load(path).module()

    def predict(images: np.ndarray) -> np.ndarray:
        answered = model(torch.from_numpy(images))
        return (answered if isinstance(answered, Tensor) else answered[0]).detach().numpy()

    return predict


FORMATS = {
    "onnx": Format(".onnx", _write_onnx, _load_onnx),
    "torch_export": Format(".pt2", _write_torch_export, _load_torch_export),
}
