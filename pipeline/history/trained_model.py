"""A finished training, found by its run: the classifier it kept and the data it was trained on."""

from dataclasses import dataclass, replace

from pipeline import data
from pipeline.history import lookup
from pipeline.model_files.classifier import Classifier
from pipeline.params import DataParams, TrainedModelParams, TrainParams
from pipeline.settings import leading, refusal
from pipeline.tracking import store
from pipeline.training import device
from pipeline.training.recipe import load_splits


@dataclass(frozen=True)
class TrainedModel:
    """What a training run left behind but for its images, on the device it is to run on."""

    run_id: str
    params: TrainParams
    checkpoint: str
    classifier: Classifier
    precision: str
    is_probe: bool  # its head was fitted to the features of a frozen network

    @property
    def model_of(self) -> str:
        """The run whose served model has these weights, which is that of the best epoch; empty for others."""
        return self.run_id if self.checkpoint == "best" else ""

    @property
    def checkpoint_note(self) -> str:
        """Whose weights they are where it is not the best epoch's, in words after a name."""
        return "" if self.checkpoint == "best" else f" (weights of its {self.checkpoint} epoch)"


@dataclass(frozen=True)
class ModelAndImages(TrainedModel):
    """What a training run left behind, ready to be looked at."""

    splits: data.Splits


def find(params: TrainedModelParams) -> ModelAndImages:
    """The training that `params.run_id` names, its weights on the chosen device.

    Raises ValueError when there is no such run, it is no FINISHED training, or its images have changed.
    """
    return with_images(find_model(params), params.data_dir, params.labels)


def find_model(params: TrainedModelParams) -> TrainedModel:
    """The network of the training that `params.run_id` names, wherever its images are now.

    Raises ValueError when there is no such run, or it is no FINISHED training.
    """
    where = device.choose(params.device)
    run_id = lookup.finished_run(params.run_id, "train")
    trained = lookup.params(run_id, TrainParams)
    with store.scratch() as folder:
        weights = store.artifact(run_id, f"weights/{params.checkpoint}.safetensors", folder)
        classifier = Classifier.load(weights, where)
    precision = device.choose_precision(params.precision, where)
    is_probe = store.stored_run(run_id).data.tags.get("step") == "probe"
    return TrainedModel(run_id, trained, params.checkpoint, classifier, precision, is_probe)


def with_images(network: TrainedModel, data_dir: str = "", labels: str = "") -> ModelAndImages:
    """The training that `network` is of, its images read from `data_dir` and `labels` where they are given.

    Raises ValueError when they are gone, others than those it was trained on, or another user says where they are.
    """
    run_id, trained, classifier = network.run_id, network.params, network.classifier
    given = {name: value for name, value in (("data_dir", data_dir), ("labels", labels)) if value}
    stored = lookup.stored_params(run_id)
    places = {name: stored[name] for name in leading(DataParams, stored, given)}
    if places and (written_by := lookup.untrusted(run_id, stored)):
        raise ValueError(f"run {run_id} {refusal(written_by, places)}")
    trained = trained.model_copy(update={"labels": labels or trained.labels})
    splits = load_splits(trained, data_dir, classifier.description.interpolation)
    digest = store.stored_run(run_id).data.tags.get("data.digest")
    if digest != splits.digest:
        raise ValueError(
            f"the images in {data_dir or trained.data_dir} are not those run {run_id} was trained on "
            f"(digest {splits.digest}, was {digest})"
        )
    if classifier.classes != list(splits.classes) or classifier.description.image_size != trained.image_size:
        raise ValueError(f"run {run_id}: its weights are of other classes or sizes than its params.json tells")
    # Weights that a training started from may have brought their own.
    splits = replace(splits, mean=classifier.description.mean, std=classifier.description.std)
    return ModelAndImages(run_id, trained, network.checkpoint, classifier, network.precision, network.is_probe, splits)


def was_validated(run_id: str) -> bool:
    """Whether that training had a validation split, as far as its numbers tell."""
    return "weights/best_valid_accuracy" in store.stored_run(run_id).data.metrics
