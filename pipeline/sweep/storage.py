"""Optuna's storage with patience: it waits for a database that is away, and stores every result once."""

import contextlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential

from pipeline.progress import say
from pipeline.sweep.workers import is_alive_here
from pipeline.text import without_passwords
from pipeline.tracking.database import PATIENCE_SECONDS
from pipeline.tracking.errors import first_line

BUSY_SECONDS = 60  # how long a writer waits until another writer has finished with a sqlite file
# With these options, libpq notices within half a minute that the server is away. By default, that takes two hours.
KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}
# Optuna calls these methods during a study. They can be tried again, because a second call changes nothing.
RETRIED_METHODS = (
    "create_new_study",
    "get_all_studies",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "_create_new_trial",
    "_get_best_trial_id",
    "_get_stale_trial_ids",
    "_get_trials",
    "_set_trial_param",
)


def engine_options(url: str) -> dict[str, Any]:
    """Options of the database at `url` for SQLAlchemy."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    uses_libpq = make_url(url).get_driver_name() in ("psycopg", "psycopg2")
    return {"pool_pre_ping": True, "connect_args": KEEPALIVES if uses_libpq else {}}


class _Patient(RDBStorage):
    """Optuna's storage, which waits up to PATIENCE_SECONDS if it loses the connection to its database."""


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: RDBStorage, *arguments: Any, **named: Any) -> Any:
        retrying = Retrying(
            retry=retry_if_exception(_is_away),
            stop=stop_after_delay(PATIENCE_SECONDS),
            wait=wait_exponential(0.5, max=4),
            before_sleep=lambda state: _say_once(self.url, state),
            reraise=True,
        )
        return retrying(method, self, *arguments, **named)

    return call


for _name in RETRIED_METHODS:
    setattr(_Patient, _name, _patient(getattr(RDBStorage, _name)))


class Storage(_Patient):
    """Optuna's storage. A worker alive on this host never counts as dead, even if the database was away for a while."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Records a heartbeat and ignores errors. An error would end Optuna's thread; the next heartbeat is enough."""
        with contextlib.suppress(Exception):
            super().record_heartbeat(trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Stores the end of a trial, also if the database did so before, and only its answer was lost."""
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            stored = self.get_trial(trial_id)
            is_ours = stored.state == state and stored.values == (None if values is None else list(values))
            if state not in (TrialState.COMPLETE, TrialState.PRUNED) or not is_ours:
                raise
            return True

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        silent = super()._get_stale_trial_ids(study_id)
        return [trial_id for trial_id in silent if not is_alive_here(self.get_trial(trial_id))]


def _is_away(error: BaseException) -> bool:
    """Whether the connection to a database server failed."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, DBAPIError) or type(cause.orig).__module__.startswith("sqlite3"):
        return False
    return cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)


def _say_once(url: str, state: RetryCallState) -> None:
    if state.attempt_number == 2 and state.outcome is not None and (error := state.outcome.exception()):
        reason = first_line(error.__cause__ or error)
        say(without_passwords(f"storage={url}: {reason}; trying again for up to {PATIENCE_SECONDS} s"))
