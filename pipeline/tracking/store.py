"""The tracking store: where it is, which experiment is meant, and what its runs hold."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own retries take minutes and cannot be cut short; ours, here and in the journal, say what they wait for.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from sqlalchemy.exc import SQLAlchemyError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

from pipeline.progress import say
from pipeline.tracking import artifact_folder, database, deadline, new_run, views
from pipeline.tracking.database import PATIENCE_SECONDS
from pipeline.tracking.errors import first_line, is_refusal, is_transient

# MLflow's own messages are for those who ask for them.
if "MLFLOW_LOGGING_LEVEL" not in os.environ:
    logging.getLogger("mlflow").setLevel(logging.WARNING)
# A busy or absent store is reported here in a line of our own.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

_answered: set[str] = set()  # stores by URI; the address of one that never did may be a typing error


class Client:
    """MlflowClient, patient with a store that is away or locked for a while."""

    def __init__(self) -> None:
        self._uri = uri()
        try:
            if self._uri != mlflow.get_tracking_uri():
                use(self._uri)  # MLflow's own functions ask for it too
            if self._uri not in _answered:
                database.prepare_store(self._uri)
            self._client = MlflowClient(self._uri)
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            raise unusable(error) from None

    def __getattr__(self, name: str) -> Any:
        return partial(self._patiently, getattr(self._client, name))

    def create_run(self, experiment_id: str, run_name: str, tags: Mapping[str, str]) -> StoredRun:
        """A new run, one however often it is asked for."""
        return self._patiently(new_run.Request(self._client, experiment_id, run_name, tags))

    def _patiently(self, ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_delay(PATIENCE_SECONDS if self._uri in _answered else 0),
            wait=wait_exponential(0.5, max=8),
            before_sleep=_say_once,
            reraise=True,
        )
        answer = retrying(deadline.timely, self._uri, ask, *arguments, **named)
        _answered.add(self._uri)
        return answer


def _may_pass(error: BaseException) -> bool:
    # Of a database that may only be read MLflow says what it says of a busy one.
    return is_transient(error) and "readonly database" not in str(error)


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 3 and state.outcome is not None and (error := state.outcome.exception()):
        say(f"tracking store {uri()}: {first_line(error)}; trying for up to {PATIENCE_SECONDS} s")


def uri() -> str:
    """Where runs are kept."""
    return database.plain(str(mlflow.get_tracking_uri()))


def use(uri: str) -> None:
    """Keeps runs there from now on, in this process."""
    mlflow.set_tracking_uri(uri)


def is_made() -> bool:
    """Whether there is a store already: a local database is made when it is first asked something."""
    file = database.file(uri())
    return file is None or file.exists()


def beside(name: str) -> Path:
    """A file beside the store's own database; in the working directory where the store is no local file."""
    file = database.file(uri())
    return (Path() if file is None else file.parent).resolve() / name


def is_there(run_id: str) -> bool:
    """Whether the store holds that run, and not as deleted. Raises ValueError when it is away."""
    try:
        return bool(Client().get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if not is_refusal(error):
            raise unusable(error) from None
        return False


def experiment_id() -> str:
    """The experiment that runs go to: of the environment that `mlflow run` sets, else Default.

    Raises ValueError when the store does not answer, or keeps artifacts where this process cannot write them.
    """
    client = Client()
    try:
        experiment = _experiment(client)
    except MlflowException as error:
        raise unusable(error) from None
    if experiment.lifecycle_stage != "active":
        raise ValueError(
            f"experiment {experiment.name} is deleted: `mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}` brings it back"
        )
    if experiment.artifact_location.startswith("mlflow-artifacts:") and not uri().startswith("http"):
        raise ValueError(
            f"experiment {experiment.name} was made by a server that keeps its artifacts: set MLFLOW_TRACKING_URI to "
            "that server (or start it with --no-serve-artifacts, as `make ui` does, and use another --experiment-name)"
        )
    for name, value in views.missing_tags(experiment).items():
        with suppress(MlflowException):  # another process was faster, or only its owner may: runs do without
            client.set_experiment_tag(experiment.experiment_id, name, value)
    return str(experiment.experiment_id)


def finished_runs(step: str, tags: Mapping[str, str] | None = None, beside: StoredRun | None = None) -> list[StoredRun]:
    """The FINISHED runs of `step` that have all of `tags`, newest first: the experiment's, and those of `beside`'s."""
    client = Client()
    experiments = {experiment_id(), *([] if beside is None else [beside.info.experiment_id])}
    wanted = {"step": step, **(tags or {})}
    conditions = [
        "attributes.status = 'FINISHED'",
        *(f"tags.`{name}` = '{value}'" for name, value in wanted.items()),
    ]
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([*experiments], " and ".join(conditions), order_by=order))


def unfinished_runs(step: str) -> list[StoredRun]:
    """The experiment's runs of `step` that did not end well and are part of no other, newest first."""
    order = ["attributes.start_time DESC"]
    found = Client().search_runs([experiment_id()], f"tags.step = '{step}'", order_by=order)
    return [run for run in found if run.info.status != "FINISHED" and "mlflow.parentRunId" not in run.data.tags]


def children(run_id: str, step: str) -> list[StoredRun]:
    """The runs of `step` below a run, newest first."""
    conditions = f"tags.mlflow.parentRunId = '{run_id}' and tags.step = '{step}'"
    experiments = [stored_run(run_id).info.experiment_id]
    return list(Client().search_runs(experiments, conditions, order_by=["attributes.start_time DESC"]))


def stored_run(run_id: str, named: str = "run_id") -> StoredRun:
    """The run of that id, which parameter `named` gave. Raises ValueError when there is none, or the store is away."""
    try:
        return Client().get_run(run_id)
    except MlflowException as error:
        if is_transient(error):
            raise unusable(error) from None
        raise ValueError(f"{named}={run_id}: no such run in {uri()}") from None


def artifact(run_id: str, path: str, folder: Path) -> Path:
    """A run's artifact, as a file under `folder`. Raises ValueError when it is not there."""
    try:
        return Path(Client().download_artifacts(run_id, path, str(folder)))
    except (MlflowException, OSError) as error:
        why = artifact_folder.why_lost(stored_run(run_id), uri()) or first_line(error)
        raise ValueError(f"run {run_id} has no artifact {path} ({why})") from None


def has_artifact(run_id: str, path: str) -> bool:
    """Whether a run has an artifact of that name at its top."""
    return any(item.path == path for item in Client().list_artifacts(run_id))


def read_json(run_id: str, path: str, folder: Path) -> dict[str, Any]:
    """The mapping in a run's JSON artifact. Raises ValueError when there is none."""
    file = artifact(run_id, path, folder)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"run {run_id}: {path} cannot be read ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"run {run_id}: {path} holds no mapping")
    return content


def delete_artifacts(run: StoredRun, path: str) -> None:
    """Removes a run's artifact folder, where its store allows that."""
    repository = get_artifact_repository(run.info.artifact_uri)
    with suppress(NotImplementedError, FileNotFoundError):
        repository.delete_artifacts(path)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for files on their way to or from the artifact store."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        yield Path(folder)


def unusable(error: Exception) -> ValueError:
    """What the store answered, in one line; where a database said no, in its own words."""
    return ValueError(f"tracking store {uri()}: {first_line(error)}")


def _experiment(client: Client) -> Any:
    for variable in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        if not os.environ.get(variable):  # MLflow takes an empty text for a name
            os.environ.pop(variable, None)
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment(experiment_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    if found := client.get_experiment_by_name(name):
        return found
    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)  # another process was faster, or the answer was lost
