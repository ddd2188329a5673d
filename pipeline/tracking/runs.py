"""The run: parameters, events, figures, tables and models -> MLflow, under a true status."""

import json
import logging
import os
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline.tracking import processes, store
from pipeline.training.events import EpochEnd, StepEnd

# Ctrl-C in the middle of a query closes the run as anywhere else; the pool's own report of it would only alarm.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

PACKAGE = Path(__file__).resolve().parent.parent
PROJECT = PACKAGE.parent
SERVING = Path(__file__).with_name("serving.py")
# What a served model needs, at the versions it was logged with.
SERVING_PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch", "torchvision")


@dataclass(frozen=True)
class Result:
    """What a step hands on: its run, one line for people, its main numbers as metrics, parameters of later steps."""

    run_id: str
    summary: str
    metrics: dict[str, float]
    handed: dict[str, Any] = field(default_factory=dict)


class Run:
    """One MLflow run by its id; several can be written to at a time, from any thread."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.status = "FINISHED"  # with which it ends, unless by an exception
        self._client = MlflowClient()
        self._steps: list[StepEnd] = []
        self._step_rows: list[dict[str, float]] = []
        self._epoch_rows: list[dict[str, float]] = []

    def record(self, event: StepEnd | EpochEnd) -> None:
        """Keeps a step for `steps`; logs an epoch's numbers as one batch at step = epoch."""
        if isinstance(event, StepEnd):
            self._steps.append(event)
            return
        values = {
            "train/loss": event.train_loss,
            "train/accuracy": event.train_accuracy,
            "valid/loss": event.valid_loss,
            "valid/accuracy": event.valid_accuracy,
            "lr": event.lr,
            "images_per_second": event.images_per_second,
        }
        measured = {name: value for name, value in values.items() if value is not None}
        self._epoch_rows.append({"epoch": event.epoch, **measured})
        self.metrics(measured, step=event.epoch)

    def epochs(self) -> pd.DataFrame:
        """The epochs recorded so far, a row each, named as their metrics."""
        return pd.DataFrame(self._epoch_rows)

    def steps(self) -> pd.DataFrame:
        """The steps recorded so far: step, epoch, lr, loss, accuracy."""
        for event in self._steps:
            accuracy = float(event.num_correct) / event.num_images
            row = {"step": event.step, "epoch": event.epoch, "lr": event.lr}
            self._step_rows.append({**row, "loss": float(event.loss), "accuracy": accuracy})
        self._steps.clear()
        return pd.DataFrame(self._step_rows)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs numbers, all at one step, in one call."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[Metric(k, float(v), now, step) for k, v in values.items()])

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs the typed truth as params.json, and as MLflow params those that its launcher has not logged as text."""
        present = self._client.get_run(self.id).data.params
        missing = [Param(name, str(value)) for name, value in values.items() if name not in present]
        self._client.log_batch(self.id, params=missing)
        self.json("params.json", dict(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Sets tags."""
        self._client.log_batch(self.id, tags=[RunTag(name, str(value)) for name, value in values.items()])

    def describe(self, name: str, markdown: str) -> None:
        """Sets the run's name and the description that the UI shows."""
        self._client.update_run(self.id, name=name)
        self.tags({"mlflow.note.content": markdown})

    def figure(self, path: str, figure: Any) -> None:
        """Logs a matplotlib Figure as an image."""
        self._client.log_figure(self.id, figure, path, save_kwargs={"dpi": 150, "bbox_inches": "tight"})

    def text(self, path: str, content: str) -> None:
        """Logs a text file."""
        self._client.log_text(self.id, content, path)

    def table(self, path: str, table: pd.DataFrame) -> None:
        """Logs a table as CSV."""
        self.text(path, table.to_csv(index=False))

    def json(self, path: str, content: Mapping[str, Any]) -> None:
        """Logs a mapping as JSON."""
        self._client.log_dict(self.id, dict(content), path)

    def files(self, folder: Path, path: str) -> None:
        """Logs all files of a folder."""
        self._client.log_artifacts(self.id, str(folder), path)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Logs the images that went in, under our own digest of all of them."""
        described = Dataset(name=name, digest=digest, source_type="local", source=json.dumps({"uri": source}))
        self._client.log_inputs(self.id, [DatasetInput(described, [InputTag("mlflow.data.context", context)])])

    def model(self, weights: Path, example: np.ndarray, prediction: pd.DataFrame) -> str:
        """Logs a pyfunc model, built from code and a weights file, without pickle. Returns its URI.

        `example` is a batch of images (N, 3, H, W) uint8 and `prediction` what the model answers to it.
        """
        from importlib.metadata import version

        schema_input = mlflow.types.Schema([mlflow.types.TensorSpec(np.dtype(np.uint8), (-1, *example.shape[1:]))])
        schema_output = mlflow.models.infer_signature(prediction).inputs
        info = mlflow.models.Model.log(
            artifact_path=None,
            name="model",
            flavor=mlflow.pyfunc,
            run_id=self.id,
            python_model=str(SERVING),
            artifacts={"weights": str(weights)},
            code_paths=[str(PACKAGE)],
            pip_requirements=[f"{package}=={version(package)}" for package in SERVING_PACKAGES],
            signature=mlflow.models.ModelSignature(inputs=schema_input, outputs=schema_output),
            input_example=example,
        )
        return str(info.model_uri)


@contextmanager
def start(step: str, name: str, parent: Run | None = None, reopen: str = "") -> Iterator[Run]:
    """A run of `step`: the one that `mlflow run` made, else a new one, a child where there is a parent.

    With `reopen`, the id of an earlier run, that one goes on, and the one that `mlflow run` made points to it.

    It ends FINISHED, or what its `status` was set to; FAILED, with the message as tag `error`, on an exception; KILLED
    on Ctrl-C or SIGTERM.
    """
    client = MlflowClient()
    experiment_id = store.experiment_id()
    _mark_dead_runs(client, experiment_id)
    tags = {"step": step, "mlflow.project.entryPoint": step, **_code_tags(), **processes.this()}
    launched = os.environ.pop("MLFLOW_RUN_ID", None) if parent is None else None
    if reopen:
        run = Run(reopen)
        for old in {"error", "pipeline.status"} & client.get_run(reopen).data.tags.keys():
            client.delete_tag(reopen, old)
        run.tags(tags)
        client.update_run(reopen, status="RUNNING")
        if launched:
            Run(launched).describe(f"{name}, continued", f"Continues run {reopen}")
    elif launched is None:
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.id
        tags |= {"mlflow.source.name": str(PROJECT), "mlflow.source.type": "PROJECT", "mlflow.user": _user()}
        run = Run(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
    else:
        run = Run(launched)
        run.tags(tags)
        client.update_run(launched, name=name)
    try:
        yield run
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        run.tags({"error": store.first_line(error), "pipeline.status": status})
        if status == "FAILED":
            run.text("traceback.txt", traceback.format_exc())
        client.set_terminated(run.id, status)
        raise
    client.set_terminated(run.id, run.status)


def fail(run_id: str, message: str, tags: Mapping[str, str] | None = None) -> None:
    """Closes a run whose process no longer can."""
    Run(run_id).tags({"error": message, **(tags or {})})
    MlflowClient().set_terminated(run_id, "FAILED")


def note_error(run_id: str, message: str) -> None:
    """Leaves the message on a run that never started; MLflow's launcher sets its status."""
    with suppress(MlflowException):
        MlflowClient().set_tag(run_id, "error", message)


def _mark_dead_runs(client: MlflowClient, experiment_id: str) -> None:
    for stored in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        tags = stored.data.tags
        if processes.is_dead(tags):
            fail(stored.info.run_id, f"process {tags['process.pid']} ended without closing the run")


def _code_tags() -> dict[str, str]:
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    if not commit:
        return {"git.commit": "unknown"}
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower(), "mlflow.source.git.commit": commit}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _user() -> str:
    try:
        return psutil.Process().username()
    except KeyError:
        return str(os.getuid())
