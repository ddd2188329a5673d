"""The tracking store: where it is, which experiment is meant, and what its runs hold."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException


def uri() -> str:
    """Where runs are kept."""
    return str(mlflow.get_tracking_uri())


def use(uri: str) -> None:
    """Keeps runs there from now on, in this process."""
    mlflow.set_tracking_uri(uri)


def beside(name: str) -> Path:
    """A file beside the store's own database; in the working directory where the store is no local file."""
    database = uri().removeprefix("sqlite:///")
    return (Path(database).parent if database != uri() else Path()).resolve() / name


def is_there(run_id: str) -> bool:
    """Whether the store holds that run, and not as deleted."""
    try:
        return bool(MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:
        return False


def experiment_id() -> str:
    """The experiment that runs go to: of the environment that `mlflow run` sets, else Default.

    Raises ValueError when the store does not answer, or keeps artifacts where this process cannot write them.
    """
    client = MlflowClient()
    try:
        experiment = _experiment(client)
    except MlflowException as error:
        raise ValueError(f"tracking store {uri()}: {first_line(error)}") from None
    if experiment.artifact_location.startswith("mlflow-artifacts:") and not uri().startswith("http"):
        raise ValueError(
            f"experiment {experiment.name} was made by a server that keeps its artifacts: set MLFLOW_TRACKING_URI to "
            "that server (or start it with --no-serve-artifacts, as `make ui` does, and use another --experiment-name)"
        )
    return str(experiment.experiment_id)


def finished_runs(step: str, tags: Mapping[str, str] | None = None) -> list[StoredRun]:
    """The experiment's FINISHED runs of `step` that have all of `tags`, newest first."""
    client = MlflowClient()
    wanted = {"step": step, **(tags or {})}
    conditions = [
        "attributes.status = 'FINISHED'",
        *(f"tags.`{name}` = '{value}'" for name, value in wanted.items()),
    ]
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([experiment_id()], " and ".join(conditions), order_by=order))


def stored_run(run_id: str) -> StoredRun:
    """The run of that id. Raises ValueError when there is none."""
    try:
        return MlflowClient().get_run(run_id)
    except MlflowException:
        raise ValueError(f"run_id={run_id}: no such run in {uri()}") from None


def artifact(run_id: str, path: str, folder: Path) -> Path:
    """A run's artifact, as a file under `folder`. Raises ValueError when it is not there."""
    try:
        return Path(MlflowClient().download_artifacts(run_id, path, str(folder)))
    except (MlflowException, OSError) as error:
        raise ValueError(f"run {run_id} has no artifact {path} ({first_line(error)})") from None


def read_json(run_id: str, path: str, folder: Path) -> dict[str, Any]:
    """The mapping in a run's JSON artifact. Raises ValueError when there is none."""
    try:
        content = json.loads(artifact(run_id, path, folder).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"run {run_id}: {path} cannot be read ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"run {run_id}: {path} holds no mapping")
    return content


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for files on their way to or from the artifact store."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        yield Path(folder)


def first_line(error: BaseException) -> str:
    """The error's first line, or its name where it has no text."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _experiment(client: MlflowClient) -> Any:
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment(experiment_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    found = client.get_experiment_by_name(name)
    if found is None:
        with suppress(MlflowException):  # another process may have been faster
            client.create_experiment(name)
        found = client.get_experiment_by_name(name)
    return found
