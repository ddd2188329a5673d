"""Starts, resumes and ends runs, and makes sure that each has a correct status."""

import logging
import os
import shlex
import subprocess
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from mlflow.entities import Run as StoredRun
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from pipeline import disk
from pipeline.text import without_passwords
from pipeline.tracking import (
    artifact_folder,
    claims,
    database,
    limits,
    machine,
    owners,
    processes,
    recovery,
    store,
    views,
)
from pipeline.tracking.run import Run
from pipeline.tracking.sender import PACKAGE
from pipeline.training.events import Failure

# Ctrl-C during a query closes the run like Ctrl-C anywhere else; the connection pool's own report would only alarm.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

PROJECT = PACKAGE.parent
JOINED = ("sweep", "trial")  # steps that several processes share; a trial is resumed once its worker counts as dead
INTERRUPTED_SECONDS = 3  # to send the rest when a scheduler ends the process


@contextmanager
def start(step: str, name: str, parent: Run | None = None, reopen: str = "") -> Iterator[Run]:
    """A run of `step`: the run that `mlflow run` created, or a new one, as a child of `parent` if given.

    `reopen` is the id of an earlier run to resume; a run that `mlflow run` created then gets a link to it. If another
    process is still working on a sweep, this process joins it, and the other process ends the run.

    The run ends as FINISHED, or with the `status` set on it. On an exception it ends as FAILED, with the message in
    tag `error`; on Ctrl-C or SIGTERM as KILLED. Raises ValueError if the store or the local journal cannot be used, or
    if the run to reopen is still running.
    """
    with store.answering():
        experiment_id = store.experiment_id()
        disk.remove_unfinished(disk.runs_folder())
        if parent is None:
            artifact_folder.warn_if_missing(store.Client(), experiment_id, store.uri())
        recovery.close_dead_runs(experiment_id)
        run_id, is_joined = _begin(step, name, experiment_id, parent, reopen)
    if is_joined:
        with attached(run_id) as run:
            yield run
        _end_if_left(store.Client(), run_id)
        return
    try:
        run = _opened(run_id, experiment_id)
        if not reopen:
            run.tags(owners.seal(run_id))
    except ValueError:
        store.Client().set_terminated(run_id, "FAILED")
        raise
    try:
        yield run
        is_sent = run.flush()
    except BaseException as error:
        _close(run, error)
        if (advice := machine.advice(error, run_id)) is not None:
            raise Failure(advice) from error
        raise
    run.end(run.status, store.PATIENCE_SECONDS if is_sent else 0)


def _begin(step: str, name: str, experiment_id: str, parent: Run | None, reopen: str) -> tuple[str, bool]:
    """(id of the run of `step`, whether it is a sweep that another process is working on). Its status is RUNNING."""
    client = store.Client()
    name = limits.name(name)
    process = processes.as_tags({**processes.this(), **processes.sign_of_life()})
    tags = {"step": step, "mlflow.project.entryPoint": step, **_code_tags(), **process}
    launched = os.environ.pop("MLFLOW_RUN_ID", "") if parent is None else ""
    if reopen:
        recovery.send(reopen)
        is_own = _take_over(client, step, name, reopen, tags)
        if launched:
            link = views.run_link(experiment_id, reopen)
            client.set_tag(launched, "mlflow.note.content", f"Continues [run {reopen}]({link})")
            client.set_tag(launched, store.PARENT_TAG, reopen)
            client.update_run(launched, name=limits.name(f"{name}, continued"))
        return reopen, not is_own
    if launched:
        client.update_run(launched, name=name)
        _set_tags(client, launched, tags)
        return launched, False
    if parent is not None:
        tags[store.PARENT_TAG] = parent.id
    tags |= {"mlflow.source.name": str(PROJECT), "mlflow.source.type": "PROJECT", "mlflow.user": _user()}
    return client.create_run(experiment_id, run_name=name, tags=tags).info.run_id, False


def _take_over(client: store.Client, step: str, name: str, run_id: str, tags: Mapping[str, str]) -> bool:
    """Takes over an earlier run for this process: sets its tags and status RUNNING. Returns whether it did.

    Returns False for a sweep that another process is working on. Raises ValueError for any other run that is under way
    or FINISHED. If several processes try at the same time, exactly one succeeds.
    """
    with claims.exclusive(run_id):
        before = client.get_run(run_id)
        if step not in JOINED and before.info.status == "FINISHED":
            raise ValueError(f"run {run_id} is FINISHED: there is nothing to resume")
        # The study's database decides which worker has a trial.
        if step != "trial" and (claims.is_under_way(before) or not claims.is_won(client, run_id)):
            if step == "sweep":
                return False
            raise ValueError(f"run {run_id} is still running: another process is working on it")
        _clear(client, before)
        _set_tags(client, run_id, {**tags, processes.REOPENED: str(time.time_ns())})
        client.update_run(run_id, status="RUNNING", name=name)
    return True


def _set_tags(client: store.Client, run_id: str, tags: Mapping[str, str]) -> None:
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _opened(run_id: str, experiment_id: str, is_own: bool = True) -> Run:
    try:
        return Run(run_id, experiment_id, is_own)
    except OSError as error:
        what = f"the run's journal cannot be written to {disk.run_folder(run_id)} ({store.first_line(error)})"
        raise ValueError(f"{what}: set XDG_STATE_HOME to another folder") from None


def _clear(client: store.Client, stored: StoredRun) -> None:
    for old in {"error", "pipeline.status"} & stored.data.tags.keys():
        client.delete_tag(stored.info.run_id, old)


def _end_if_left(client: store.Client, run_id: str) -> None:
    """Sets a joined run to FINISHED if the process that started it ended before."""
    stored = client.get_run(run_id)
    if stored.info.status in ("KILLED", "FAILED") or processes.is_dead(stored.data.tags):
        _clear(client, stored)
        client.set_terminated(run_id, "FINISHED")


def _close(run: Run, error: BaseException) -> None:
    """Ends a run that `error` stopped. It waits only shortly for the store after an interrupt or on a full disk."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    status = "KILLED" if is_interrupt else "FAILED"
    tags = {"error": store.first_line(error), "pipeline.status": status}
    try:
        with suppress(FileNotFoundError):  # the journal was removed: it is written again, with these tags in it
            run.tags(tags)
        if not is_interrupt:
            run.text("traceback.txt", traceback.format_exc())
        run.end(status, INTERRUPTED_SECONDS if is_interrupt or machine.is_full(error) else store.PATIENCE_SECONDS)
    except OSError:  # a full disk takes no journal, but the store may be on another one
        with suppress(MlflowException):
            client = store.Client()
            _set_tags(client, run.id, tags)
            client.set_terminated(run.id, status)


@contextmanager
def attached(run_id: str) -> Iterator[Run]:
    """A run that another process has started and will end."""
    run = _opened(run_id, store.experiment_id(), is_own=False)
    try:
        yield run
        run.flush()
    except OSError as error:
        if (advice := machine.advice(error, run_id)) is not None:
            raise Failure(advice) from error
        raise
    finally:
        run.release()


def where_to_look(run_id: str) -> str:
    """A sentence that says where a run is stored, without a password, and how to view it."""
    uri = store.uri()
    place = without_passwords(uri)
    if uri.startswith("http"):
        how = f"at {place}"
    elif Path.cwd() == PROJECT and database.file(uri) == PROJECT / "mlflow.db":
        how = "with: make ui"
    else:  # without an address, MLflow shows the store of the working directory
        how = f"with: mlflow ui --backend-store-uri {shlex.quote(place)}"
    return f"Tracked in {place}, run {run_id}. Look at it {how}"


def note_error(run_id: str, message: str) -> None:
    """Sets the message as tag `error` of a run that never started; MLflow's launcher sets its status."""
    with suppress(MlflowException, ValueError):
        store.Client().set_tag(run_id, "error", limits.tag(without_passwords(message)))


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
