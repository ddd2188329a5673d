"""The tracking store: its address, the current experiment, and reading runs and artifacts."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# MLflow's own retries take minutes and cannot be stopped. The retries here and in the journal say what they wait for.
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
from pipeline.tracking.errors import first_line, is_refusal, is_transient, is_worth_retrying

# MLflow's own messages appear only if the user sets MLFLOW_LOGGING_LEVEL.
if "MLFLOW_LOGGING_LEVEL" not in os.environ:
    logging.getLogger("mlflow").setLevel(logging.WARNING)
# This project reports a busy or absent store in one line of its own.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)

PARENT_TAG = "mlflow.parentRunId"  # tag of a run below another one: the id of that run
_answered: set[str] = set()  # URIs of stores that have answered; the address of any other may be a typing error


class Client:
    """An MlflowClient that waits for a store that is away or locked for a while."""

    def __init__(self) -> None:
        self._uri = uri()
        try:
            if self._uri != mlflow.get_tracking_uri():
                use(self._uri)  # MLflow's own functions ask for it too
            if self._uri not in _answered:
                database.prepare_store(self._uri)
            self._client = MlflowClient(self._uri)
        except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
            raise _unusable(error) from None

    def __getattr__(self, name: str) -> Any:
        return partial(self._patiently, getattr(self._client, name))

    def create_run(self, experiment_id: str, run_name: str, tags: Mapping[str, str]) -> StoredRun:
        """A new run. Only one is created, even if the request must be repeated."""
        return self._patiently(new_run.Request(self._client, experiment_id, run_name, tags))

    def _patiently(self, ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        retrying = Retrying(
            retry=retry_if_exception(is_worth_retrying),
            stop=stop_after_delay(PATIENCE_SECONDS if self._uri in _answered else 0),
            wait=wait_exponential(0.5, max=8),
            before_sleep=_say_once,
            reraise=True,
        )
        answer = retrying(deadline.call_in_time, self._uri, ask, *arguments, **named)
        _answered.add(self._uri)
        return answer


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 3 and state.outcome is not None and (error := state.outcome.exception()):
        say(f"tracking store {uri()}: {first_line(error)}; trying again for up to {PATIENCE_SECONDS} s")


def uri() -> str:
    """The address of the store."""
    return database.plain(str(mlflow.get_tracking_uri()))


def use(uri: str) -> None:
    """Uses the store at `uri` from now on, in this process."""
    mlflow.set_tracking_uri(uri)


def is_made() -> bool:
    """Whether the store exists. A local database is created at the first request."""
    file = database.file(uri())
    return file is None or file.exists()


def path_beside(name: str) -> Path:
    """The path of file `name` in the folder of the store's database; in the working directory if it is not a file."""
    file = database.file(uri())
    return (Path() if file is None else file.parent).resolve() / name


def find(run_id: str) -> StoredRun | None:
    """The run; None if the store does not have it, or if it is deleted. Raises ValueError if it does not answer."""
    try:
        return run if (run := Client().get_run(run_id)).info.lifecycle_stage == "active" else None
    except MlflowException as error:
        if not is_refusal(error):
            raise _unusable(error) from None
        return None


def experiment_id() -> str:
    """The id of the experiment for new runs: the one that `mlflow run` sets in the environment, or Default.

    Raises ValueError if the store does not answer, or if this process cannot write the experiment's artifacts.
    """
    client = Client()
    with answering():
        experiment = _experiment(client)
    if experiment.lifecycle_stage != "active":
        raise ValueError(
            f"experiment {experiment.name} is deleted: restore it with `mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}`"
        )
    if experiment.artifact_location.startswith("mlflow-artifacts:") and not uri().startswith("http"):
        raise ValueError(
            f"a server created experiment {experiment.name} and keeps its artifacts: set MLFLOW_TRACKING_URI to that "
            "server (or start it with --no-serve-artifacts, as `make ui` does, and use another --experiment-name)"
        )
    for name, value in views.missing_tags(experiment).items():
        with suppress(MlflowException):  # another process was faster, or the user has no right; runs do not need it
            client.set_experiment_tag(experiment.experiment_id, name, value)
    return str(experiment.experiment_id)


def finished_runs(step: str, tags: Mapping[str, str] | None = None, beside: StoredRun | None = None) -> list[StoredRun]:
    """The FINISHED runs of `step` with all of `tags`, newest first.

    They come from the current experiment, and from the experiment of run `beside`.
    """
    experiments = {experiment_id(), *([] if beside is None else [beside.info.experiment_id])}
    return _search(experiments, {"step": step, **(tags or {})}, "attributes.status = 'FINISHED'")


def unfinished_runs(step: str, tags: Mapping[str, str] | None = None) -> list[StoredRun]:
    """The experiment's runs of `step` with all of `tags` that are not FINISHED, newest first."""
    return _search([experiment_id()], {"step": step, **(tags or {})}, "attributes.status != 'FINISHED'")


def children(run_id: str, step: str) -> list[StoredRun]:
    """The child runs of a run that are of `step`, newest first."""
    return _search([stored_run(run_id).info.experiment_id], {PARENT_TAG: run_id, "step": step})


def stored_run(run_id: str, named: str = "run_id") -> StoredRun:
    """The run with id `run_id`, which the user gave as parameter `named`.

    Raises ValueError if there is no such run, or if the store does not answer.
    """
    try:
        return Client().get_run(run_id)
    except MlflowException as error:
        if is_transient(error):
            raise _unusable(error) from None
        raise ValueError(f"{named}={run_id}: no such run in {uri()}") from None


def artifact(run_id: str, path: str, folder: Path) -> Path:
    """A run's artifact, as a file under `folder`. Raises ValueError, which says why, if it cannot be read."""
    try:
        return Path(Client().download_artifacts(run_id, path, str(folder)))
    except (MlflowException, OSError) as error:
        if not (why := artifact_folder.why_missing(stored_run(run_id), uri())):
            artifacts(run_id)  # if none can be read, this says why; MLflow only says that the path may be wrong
            why = first_line(error)
        raise ValueError(f"run {run_id} has no artifact {path} ({why})") from None


def artifacts(run_id: str, folder: str = "") -> set[str]:
    """The paths of the artifacts in a run's `folder`, by default its top level. Raises ValueError without an answer."""
    try:
        return {str(item.path) for item in Client().list_artifacts(run_id, folder or None)}
    except Exception as error:  # each storage library raises its own error, also if it is not installed
        raise ValueError(f"run {run_id}: its artifacts cannot be listed ({first_line(error)})") from None


def read_json(run_id: str, path: str, folder: Path) -> dict[str, Any]:
    """The mapping in a run's JSON artifact. Raises ValueError if there is none."""
    file = artifact(run_id, path, folder)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"run {run_id}: {path} cannot be read ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"run {run_id}: {path} does not hold a mapping")
    return content


def delete_artifacts(run: StoredRun, path: str) -> None:
    """Removes a run's artifact folder, if its store allows that."""
    repository = get_artifact_repository(run.info.artifact_uri)
    with suppress(NotImplementedError, FileNotFoundError):
        repository.delete_artifacts(path)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for files on their way to or from the artifact store."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        yield Path(folder)


@contextmanager
def answering() -> Iterator[None]:
    """Inside this context, an error of the store becomes a ValueError with its reason in one line."""
    try:
        yield
    except MlflowException as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> ValueError:
    """A ValueError with the store's answer in one line; a database's refusal is quoted."""
    return ValueError(f"tracking store {uri()}: {first_line(error)}")


def _search(experiments: Iterable[str], tags: Mapping[str, str], *conditions: str) -> list[StoredRun]:
    """The runs with all of `tags` that meet the `conditions`, newest first. Raises ValueError without an answer."""
    query = " and ".join([*conditions, *(f"tags.`{name}` = '{value}'" for name, value in tags.items())])
    with answering():
        return list(Client().search_runs([*experiments], query, order_by=["attributes.start_time DESC"]))


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
