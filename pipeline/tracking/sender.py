"""Sends the entries of a journal to MLflow. Sending an entry twice changes nothing."""

import base64
import logging
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.entities import Run as StoredRun

from pipeline.data.encoder import to_png
from pipeline.model_files import registry, states
from pipeline.model_files.classifier import Classifier
from pipeline.model_files.serving import PARAMS
from pipeline.models import timm_networks
from pipeline.progress import say
from pipeline.text import note, unmarked
from pipeline.tracking import errors, store, views
from pipeline.tracking.entries import Entry
from pipeline.tracking.journal import FILES
from pipeline.tracking.outbox import Transient

log = logging.getLogger(__name__)

NOTE = "mlflow.note.content"  # the UI shows this tag as a run's description
PACKAGE = Path(__file__).resolve().parent.parent
MODEL_METRICS = ("train/", "valid/")  # metrics of an epoch that are logged for the model of that epoch too
SERVING = PACKAGE / "model_files" / "serving.py"
SERVING_ROOMS = ("data", "model_files", "models", "params", "results", "training")  # a served model imports these only
# A served model needs these packages, in the versions it was logged with.
SERVING_PACKAGES = (
    "mlflow",
    "numpy",
    "pandas",
    "pi-heif",
    "pillow",
    "platformdirs",
    "pydantic",
    "pyyaml",
    "safetensors",
    "torch",
    "torchvision",
    "tqdm",
)


class Sender:
    """Sends the entries of one run. Raises Transient if the store may accept an entry later."""

    def __init__(self, run_id: str, uri: str) -> None:
        self._run_id = run_id
        self._client = MlflowClient(uri)
        self.messages: list[str] = []  # results of entries, for users

    def __call__(self, folder: Path, entry: Entry) -> None:
        """Sends one entry of the journal in `folder`."""
        try:
            message = SEND[entry["kind"]](self._client, self._run_id, folder, entry)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{entry['kind']} of run {self._run_id}: not an entry of this version ({error})"
            ) from error
        except Exception as error:
            if isinstance(error, OSError | ValueError) and not isinstance(error, requests.RequestException):
                raise
            if errors.is_refusal(error):
                raise ValueError(f"{entry['kind']} of run {self._run_id}: {store.first_line(error)}") from error
            raise Transient(store.first_line(error)) from error
        if message:
            self.messages.append(message)
            say(message)


def _metrics(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    # MLflow stores a point once if time, step and value are the same.
    points = [Metric(name, value, entry["at"], entry["step"]) for name, value in entry["values"].items()]
    if (model_of := entry.get("model_of")) and (model_id := registry.served_model(client, client.get_run(model_of))):
        points = _of_model(points, model_id, client.get_run(run_id))
    client.log_batch(run_id, metrics=points)


def _params(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    # MLflow's launcher may have logged some already, and MLflow refuses another text for the same parameter.
    present = client.get_run(run_id).data.params
    missing = [Param(name, value) for name, value in entry["values"].items() if name not in present]
    client.log_batch(run_id, params=missing)


def _tags(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in entry["values"].items()])


def _name(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    client.update_run(run_id, name=entry["name"])


def _status(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    client.set_terminated(run_id, entry["status"], entry["at"])


def _dataset(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    described = Dataset(entry["name"], entry["digest"], source_type="local", source=entry["source"])
    client.log_inputs(run_id, [DatasetInput(described, [InputTag("mlflow.data.context", entry["context"])])])


def _file(client: MlflowClient, run_id: str, folder: Path, entry: Entry) -> None:
    file = _own(folder, entry["file"])
    if not file.exists():  # it was sent before, but the answer was lost
        return
    within = PurePosixPath(entry["path"]).parent.as_posix()
    client.log_artifact(run_id, str(file), None if within == "." else within)
    file.unlink()


def _state(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    path = states.slot(run_id, entry["slot"])
    if states.step_of(path) != entry["step"]:  # a newer state has replaced it, and has an entry of its own
        return
    client.log_artifact(run_id, str(path), states.ARTIFACTS)
    client.set_tag(run_id, states.STEP_TAG, str(entry["step"]))


def _no_states(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    states.remove(run_id)
    run = client.get_run(run_id)
    try:
        store.delete_artifacts(run, states.ARTIFACTS)
    except Exception as error:  # the user may have no right to delete; each storage library raises its own error
        if errors.is_transient(error):
            raise
        log.warning("the states of run %s stay among its artifacts: %s", run_id, store.first_line(error))
    client.set_tag(run_id, states.STEP_TAG, "")


def _model(client: MlflowClient, run_id: str, folder: Path, entry: Entry) -> None:
    """Logs a pyfunc model, unless the run has a complete one, and links the numbers of its epoch to it."""
    weights, example = _own(folder, entry["weights"]), np.load(_own(folder, entry["example"]), allow_pickle=False)
    run = client.get_run(run_id)
    model_id = registry.served_model(client, run) or _log_model(run_id, weights, example)
    # The same points are logged again; this only adds the link to the model.
    names = [name for name in run.data.metrics if name.startswith(MODEL_METRICS)]
    points = [point for name in names for point in client.get_metric_history(run_id, name)]
    client.log_batch(
        run_id, metrics=_of_model([point for point in points if point.step == entry.get("epoch")], model_id, run)
    )


def _log_model(run_id: str, weights: Path, example: np.ndarray) -> str:
    classifier = Classifier.load(weights)
    answers = mlflow.models.infer_signature(classifier.table(example), params=PARAMS)
    packages = (*SERVING_PACKAGES, *(["timm"] if timm_networks.has(classifier.description.network.name) else []))
    with tempfile.TemporaryDirectory() as folder:
        logged = mlflow.models.Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=run_id,
            python_model=str(SERVING),
            artifacts={"weights": str(weights)},
            code_paths=[_serving_code(Path(folder))],
            pip_requirements=[f"{package}=={version(package)}" for package in packages],
            # The model's own code checks its input, as no MLflow schema allows both arrays and tables.
            signature=mlflow.models.ModelSignature(outputs=answers.inputs, params=answers.params),
            input_example=_as_sent(example),
        )
    return str(logged.model_id)


def _serving_code(folder: Path) -> str:
    """A copy of this package in `folder` with SERVING_ROOMS only, as MLflow sends each file in a request of its own."""

    def left_out(parent: str, names: list[str]) -> set[str]:
        rooms = {each.name for each in PACKAGE.iterdir() if each.is_dir()} if Path(parent) == PACKAGE else set()
        return rooms - {*SERVING_ROOMS} | {"__pycache__"}

    return str(shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=left_out))


def _of_model(points: list[Metric], model_id: str, run: StoredRun) -> list[Metric]:
    """The points, logged for a model and as measured on the images of `run`."""
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    name, digest = (inputs[0].dataset.name, inputs[0].dataset.digest) if inputs else (None, None)
    return [
        Metric(point.key, point.value, point.timestamp, point.step, model_id, name, digest, run.info.run_id)
        for point in points
    ]


def _view(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> None:
    client.set_experiment_tag(client.get_run(run_id).info.experiment_id, views.tag(run_id), entry["view"])


def _as_sent(images: np.ndarray) -> pd.DataFrame:
    """Images (N, 3, H, W) uint8 as a request to a served model has them: a column of base64 text."""
    return pd.DataFrame({"image": [base64.b64encode(to_png(image)).decode("ascii") for image in images]})


def _register(client: MlflowClient, run_id: str, _: Path, entry: Entry) -> str:
    """Registers the model that the run has evaluated. Returns the result, which is also added to the description."""
    verdict = registry.register(client, entry["name"], entry["train_run_id"], run_id, entry["test_digest"])
    described, paragraph = client.get_run(run_id).data.tags.get(NOTE, ""), note(f"\n\n{unmarked(verdict)}")
    client.set_tag(run_id, "registered", verdict)
    client.set_tag(run_id, NOTE, described.removesuffix(paragraph) + paragraph)
    return verdict


def _own(folder: Path, name: str) -> Path:
    """The journal's own file `name`. Raises ValueError for a path outside the journal."""
    path = (folder / name).resolve()
    if not path.is_relative_to((folder / FILES).resolve()):
        raise ValueError(f"{name} is not a file of the journal")
    return path


SEND: dict[str, Callable[[MlflowClient, str, Path, Any], str | None]] = {
    "metrics": _metrics,
    "params": _params,
    "tags": _tags,
    "name": _name,
    "view": _view,
    "status": _status,
    "dataset": _dataset,
    "file": _file,
    "state": _state,
    "no_states": _no_states,
    "model": _model,
    "register": _register,
}
