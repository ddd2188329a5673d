"""Creates a run exactly once, even if the store's answer is lost and the request is repeated."""

import uuid
from collections.abc import Mapping
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from pipeline.tracking import processes

REQUEST = f"{processes.HIDDEN_PREFIX}request"  # tag: the id of the request, to find the run if the answer was lost


class Request:
    """A request for a run. If it is called again after an error, it first looks for the run of the first call."""

    def __init__(self, client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._name = name
        self._id = uuid.uuid4().hex
        self._tags = {**tags, REQUEST: self._id}
        self._is_sent = False

    def __call__(self) -> StoredRun:
        """The run, as stored."""
        found = self._search() if self._is_sent else []
        self._is_sent = True
        if not found:
            created = self._client.create_run(self._experiment_id, run_name=self._name, tags=self._tags)
            found = self._search() or [created]
        run, *copies = found
        for copy in copies:  # MLflow's own client has repeated the request
            with suppress(MlflowException):
                self._client.delete_run(copy.info.run_id)
        return run

    def _search(self) -> list[StoredRun]:
        return list(self._client.search_runs([self._experiment_id], f"tags.`{REQUEST}` = '{self._id}'"))
