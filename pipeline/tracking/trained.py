"""A finished training, found by its run: the classifier it kept and the data it was trained on."""

from dataclasses import dataclass, replace

from pydantic import ValidationError

from pipeline import data
from pipeline.params import TrainedParams, TrainParams
from pipeline.tracking import store
from pipeline.tracking.classifier import Classifier
from pipeline.training import device
from pipeline.training.setup import load_splits


@dataclass(frozen=True)
class TrainedNetwork:
    """What a training run left behind but for its images, on the device it is to run on."""

    run_id: str
    params: TrainParams
    checkpoint: str
    classifier: Classifier
    precision: str

    @property
    def model_of(self) -> str:
        """The run whose served model has these weights, which is that of the best epoch; empty for others."""
        return self.run_id if self.checkpoint == "best" else ""

    @property
    def told(self) -> str:
        """Whose weights they are where it is not the best epoch's, in words after a name."""
        return "" if self.checkpoint == "best" else f" (weights of its {self.checkpoint} epoch)"


@dataclass(frozen=True)
class Training(TrainedNetwork):
    """What a training run left behind, ready to be looked at."""

    splits: data.Splits


def find(params: TrainedParams) -> Training:
    """The training that `params.run_id` names, its weights on the chosen device.

    Raises ValueError when there is no such run, it is no FINISHED training, or its images have changed.
    """
    return with_images(find_network(params), params.data_dir)


def find_network(params: TrainedParams) -> TrainedNetwork:
    """The network of the training that `params.run_id` names, wherever its images are now.

    Raises ValueError when there is no such run, or it is no FINISHED training.
    """
    where = device.choose(params.device)
    run_id = _run_id(params.run_id)
    with store.scratch() as folder:
        stored = store.read_json(run_id, "params.json", folder)
        weights = store.artifact(run_id, f"weights/{params.checkpoint}.safetensors", folder)
        classifier = Classifier.load(weights, where)
    try:
        trained = TrainParams(**stored)
    except ValidationError:
        raise ValueError(f"run {run_id}: its params.json is of another version of this project") from None
    precision = device.choose_precision(params.precision, where)
    return TrainedNetwork(run_id, trained, params.checkpoint, classifier, precision)


def with_images(network: TrainedNetwork, data_dir: str = "") -> Training:
    """The training that `network` is of, its images read from `data_dir` where that is given.

    Raises ValueError when they are gone, or others than those it was trained on.
    """
    run_id, trained, classifier = network.run_id, network.params, network.classifier
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
    return Training(run_id, trained, network.checkpoint, classifier, network.precision, splits)


def was_validated(run_id: str) -> bool:
    """Whether that training had a validation split, as far as its numbers tell."""
    return "weights/best_valid_accuracy" in store.stored_run(run_id).data.metrics


def _run_id(asked: str) -> str:
    if asked == "latest":
        finished = store.finished_runs("train")
        if not finished:
            raise ValueError("run_id=latest: no FINISHED training in this experiment; train first")
        return str(finished[0].info.run_id)
    run = store.stored_run(asked)
    if (step := run.data.tags.get("step")) != "train":
        raise ValueError(f"run_id={asked} is no training but {step or 'a run of something else'}")
    if run.info.status != "FINISHED":
        raise ValueError(f"run_id={asked} is not FINISHED but {run.info.status}")
    return asked
