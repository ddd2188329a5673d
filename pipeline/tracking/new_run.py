"""A new run of the store, made once though its answer is lost on the way and it is asked for again."""

import uuid
from collections.abc import Mapping
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline.tracking import processes

REQUEST = f"{processes.UNSEEN}request"  # tag: an id of what was asked, by which a run is found whose answer was lost


class Request:
    """Asks for a run; called again after an error, it first looks for the run that it has asked for."""

    def __init__(self, client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._name = name
        self._id = uuid.uuid4().hex
        self._tags = {**tags, REQUEST: self._id}
        self._is_sent = False

    def __call__(self) -> StoredRun:
        """The run, as the store has it."""
        found = self._found() if self._is_sent else []
        self._is_sent = True
        if not found:
            made = self._client.create_run(self._experiment_id, run_name=self._name, tags=self._tags)
            found = self._found() or [made]
        run, *copies = found
        for copy in copies:  # MLflow's own client has asked again
            with suppress(MlflowException):
                self._client.delete_run(copy.info.run_id)
        return run

    def _found(self) -> list[StoredRun]:
        return list(self._client.search_runs([self._experiment_id], f"tags.`{REQUEST}` = '{self._id}'"))
