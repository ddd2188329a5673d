"""Finds a finished training by its run, and loads its classifier and its images."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from pipeline import data
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.history import lookup
from pipeline.model_files.classifier import Classifier
from pipeline.params import DataParams, NetworkParams, TrainedModelParams, TrainParams
from pipeline.params.base import CalibrationParams
from pipeline.settings import refusal, stored_places
from pipeline.tracking import store
from pipeline.training import device
from pipeline.training.recipe import load_splits
from pipeline.training.update import predict

LARGEST_BATCH = 512


@dataclass(frozen=True)
class TrainedModel:
    """The classifier of a finished training, on the chosen device, without its images."""

    run_id: str
    params: TrainParams
    checkpoint: str
    classifier: Classifier
    precision: str
    is_probe: bool  # only its head was trained, on the features of a frozen network

    @property
    def network_name(self) -> str:
        """The architecture, and the number of networks of an ensemble."""
        number = len(self.classifier.description.members)
        return f"ensemble of {number} {self.params.model}" if number else self.params.model

    @property
    def model_of(self) -> str:
        """The id of the run whose served model has these weights; empty unless they are from the best epoch."""
        return self.run_id if self.checkpoint == "best" else ""

    @property
    def checkpoint_note(self) -> str:
        """A note to add to a name if the weights are not from the best epoch; otherwise empty."""
        return "" if self.checkpoint == "best" else f" (weights of its {self.checkpoint} epoch)"


@dataclass(frozen=True)
class ModelAndImages(TrainedModel):
    """The classifier of a finished training, and its images."""

    splits: data.Splits

    def test_logits(self, model: nn.Module | None = None) -> Tensor:
        """The logits (N, C) float32 of the test images, on the CPU: of `model`, or else of the training's network."""
        network = self.classifier.model if model is None else model
        size = batch_size(self.params.image_size, LARGEST_BATCH)
        where = next(network.parameters()).device
        return predict(network, NormalisedBatches(self.splits, self.splits.test, size, where), self.precision)[0]


def find(params: TrainedModelParams) -> ModelAndImages:
    """The classifier and images of the training that `params.run_id` names, on the chosen device.

    Raises ValueError if there is no such run, if it is not a FINISHED training, or if its images have changed.
    """
    return with_images(find_model(params), params.data_dir, params.labels)


def find_model(params: NetworkParams) -> TrainedModel:
    """The classifier of the training that `params.run_id` names. Its images are not needed.

    Raises ValueError if there is no such run, or if it is not a FINISHED training.
    """
    where = device.choose(params.device)
    run_id = lookup.finished_run(params.run_id, "train")
    step = store.stored_run(run_id).data.tags.get("step")
    if step == "ensemble" and params.checkpoint != "best":
        raise ValueError(f"checkpoint={params.checkpoint}: an ensemble has only the best weights of its members")
    trained = lookup.params(run_id, TrainParams)
    with store.scratch() as folder:
        weights = store.artifact(run_id, f"weights/{params.checkpoint}.safetensors", folder)
        classifier = Classifier.load(weights, where)
    if isinstance(params, CalibrationParams):
        classifier = classifier.wanting(params.reject_above_error, params.set_coverage)
    precision = device.choose_precision(params.precision, where)
    return TrainedModel(run_id, trained, params.checkpoint, classifier, precision, is_probe=step == "probe")


def with_images(network: TrainedModel, data_dir: str = "", labels: str = "") -> ModelAndImages:
    """`network` with the images that it was trained on, read from `data_dir` and `labels` if given.

    Raises ValueError if the images are missing or have changed, or if their path comes from another user's run.
    """
    run_id, trained, classifier = network.run_id, network.params, network.classifier
    given = {name: value for name, value in (("data_dir", data_dir), ("labels", labels)) if value}
    stored = lookup.stored_params(run_id)
    places = {name: stored[name] for name in stored_places(DataParams, stored, given)}
    if places and (written_by := lookup.foreign_author(run_id, stored)):
        raise ValueError(f"run {run_id} {refusal(written_by, places)}")
    trained = trained.model_copy(update={"labels": labels or trained.labels})
    splits = load_splits(trained, data_dir, classifier.description.interpolation)
    digest = store.stored_run(run_id).data.tags.get("data.digest")
    if digest != splits.digest:
        raise ValueError(
            f"the images in {data_dir or trained.data_dir} are not the images that run {run_id} was trained on "
            f"(digest {splits.digest}, was {digest})"
        )
    if classifier.classes != list(splits.classes) or classifier.description.image_size != trained.image_size:
        raise ValueError(f"run {run_id}: the classes or image size of its weights do not match its params.json")
    # The starting weights of the training may have had their own mean and standard deviation.
    splits = replace(splits, mean=classifier.description.mean, std=classifier.description.std)
    return ModelAndImages(run_id, trained, network.checkpoint, classifier, network.precision, network.is_probe, splits)


def was_validated(run_id: str) -> bool:
    """Whether the training had a validation split: then it has logged an accuracy on it."""
    return "weights/best_valid_accuracy" in store.stored_run(run_id).data.metrics
