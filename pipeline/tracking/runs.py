"""The run: parameters, events, figures, tables and models -> MLflow, under a true status."""

import errno
import json
import logging
import os
import shutil
import subprocess
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from pipeline.params import as_text
from pipeline.progress import say
from pipeline.text import cell, note
from pipeline.tracking import journal, local, processes, states, store
from pipeline.tracking.journal import Journal
from pipeline.tracking.sending import PACKAGE, Sender
from pipeline.training import device
from pipeline.training.events import EpochEnd, Failure

# Ctrl-C in the middle of a query closes the run as anywhere else; the pool's own report of it would only alarm.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

PROJECT = PACKAGE.parent
ENDED = "process {} ended without closing the run"
TELLING_SECONDS = 5  # of waiting for the store before a person is told
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
INTERRUPTED_SECONDS = 3  # for what is left to send when a scheduler wants the process gone


@dataclass(frozen=True)
class Result:
    """What a step hands on: its run, one line for people, its main numbers as metrics, parameters of later steps."""

    run_id: str
    summary: str
    metrics: dict[str, float]
    handed: dict[str, Any] = field(default_factory=dict)


class Run:
    """One MLflow run by its id; several can be written to at a time, from any thread.

    What is logged is on this disk when a method returns, and in MLflow soon: at the latest after `flush`.
    """

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.status = "FINISHED"  # with which it ends, unless by an exception
        self._journal = Journal(run_id, store.uri(), Sender(run_id, store.uri()))

    def record(self, event: EpochEnd) -> None:
        """Logs an epoch's numbers as one batch at step = epoch."""
        self.metrics(measured(event), step=event.epoch)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Logs numbers, all at one step, in one call."""
        self._journal.append("metrics", values={name: float(value) for name, value in values.items()}, step=step)

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs the typed truth as params.json, and as MLflow params those that its launcher has not logged as text."""
        self._journal.append("params", values={name: as_text(value) for name, value in values.items()})
        self.json("params.json", dict(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Sets tags."""
        self._journal.append("tags", values={name: str(value) for name, value in values.items()})

    def describe(self, name: str, markdown: str) -> None:
        """Sets the run's name and the description that the UI shows."""
        self._journal.append("name", name=name)
        self.tags({"mlflow.note.content": note(markdown)})

    def figure(self, path: str, figure: Any) -> None:
        """Logs a matplotlib Figure as an image."""
        with self._file(path) as file:
            figure.savefig(file, dpi=150, bbox_inches="tight")

    def text(self, path: str, content: str) -> None:
        """Logs a text file."""
        with self._file(path) as file:
            file.write_text(content, encoding="utf-8")

    def table(self, path: str, table: pd.DataFrame) -> None:
        """Logs a table as CSV, its texts as `cell` writes them: one text is the same in every table."""
        harmless = table.rename(columns=_cell).apply(
            lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(_cell)
        )
        self.text(path, harmless.to_csv(index=False))

    def json(self, path: str, content: Any) -> None:
        """Logs plain data as JSON."""
        self.text(path, json.dumps(content, indent=2))

    def file(self, source: Path, path: str) -> None:
        """Logs a copy of a file."""
        with self._file(path) as file:
            shutil.copyfile(source, file)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Logs the images that went in, under our own digest of all of them."""
        self._journal.append("dataset", name=name, digest=digest, source=json.dumps({"uri": source}), context=context)

    def model(self, weights: Path, example: np.ndarray) -> str:
        """Logs a pyfunc model, built from code and a weights file, without pickle. Returns its URI.

        `example` is a batch of images (N, 3, H, W) uint8.
        """
        copied, images = self._journal.file("classifier.safetensors"), self._journal.file("example.npy")
        shutil.copyfile(weights, copied)
        np.save(images, example)
        relative = self._journal.relative
        self._journal.append("model", weights=relative(copied), example=relative(images))
        return f"runs:/{self.id}/model"

    def state(self, tree: Any, step: int) -> None:
        """Keeps the state of a training after `step` updates: on this disk now, as an artifact soon."""
        self._journal.append("state", slot=states.save(self.id, tree, step), step=step)

    def no_states(self) -> None:
        """Removes the states that were kept, here and among the artifacts."""
        states.remove(self.id)
        self._journal.append("no_states")

    def flush(self, seconds: float = store.PATIENCE_SECONDS) -> bool:
        """Waits until MLflow has what was logged, at most so long. Returns whether it has.

        Raises Failure when it refused something.
        """
        is_sent = self._journal.flush(min(seconds, TELLING_SECONDS))
        if not is_sent and seconds > TELLING_SECONDS:
            say(f"waiting up to {seconds:.0f} s for the tracking store {store.uri()}")
            is_sent = self._journal.flush(seconds)
        if self._journal.refused:
            raise Failure(f"not tracked: {self._journal.refused[0]}")
        return is_sent

    def end(self, status: str, seconds: float) -> None:
        """Closes the run; what MLflow has not taken within so long stays in the journal."""
        self._journal.append("status", status=status)
        self._journal.flush(seconds)
        self.release()

    def release(self) -> None:
        """Writes to the run no more, and leaves it open."""
        if self._journal.close():
            local.remove_if_empty(self.id)

    @contextmanager
    def _file(self, path: str) -> Iterator[Path]:
        file = self._journal.file(Path(path).name)
        yield file
        self._journal.append("file", file=self._journal.relative(file), path=path)


def _cell(value: Any) -> Any:
    return cell(value) if isinstance(value, str) else value


def measured(event: EpochEnd) -> dict[str, float]:
    """An epoch's numbers by the names of their metrics."""
    values = {
        "train/loss": event.train_loss,
        "train/accuracy": event.train_accuracy,
        "valid/loss": event.valid_loss,
        "valid/accuracy": event.valid_accuracy,
        "lr": event.lr,
        "images_per_second": event.images_per_second,
    }
    return {name: value for name, value in values.items() if value is not None}


@contextmanager
def start(step: str, name: str, parent: Run | None = None, reopen: str = "") -> Iterator[Run]:
    """A run of `step`: the one that `mlflow run` made, else a new one, a child where there is a parent.

    With `reopen`, the id of an earlier run, that one goes on, and the one that `mlflow run` made points to it.

    It ends FINISHED, or what its `status` was set to; FAILED, with the message as tag `error`, on an exception; KILLED
    on Ctrl-C or SIGTERM.
    """
    client = store.Client()
    experiment_id = store.experiment_id()
    _mark_dead_runs(client, experiment_id)
    tags = {"step": step, "mlflow.project.entryPoint": step, **_code_tags(), **processes.this()}
    launched = os.environ.pop("MLFLOW_RUN_ID", None) if parent is None else None
    if reopen:
        run_id = reopen
        for old in {"error", "pipeline.status"} & client.get_run(reopen).data.tags.keys():
            client.delete_tag(reopen, old)
        client.update_run(reopen, status="RUNNING", name=name)
        if launched:
            client.set_tag(launched, "mlflow.note.content", f"Continues run {reopen}")
            client.set_tag(launched, "mlflow.parentRunId", reopen)
            client.update_run(launched, name=f"{name}, continued")
    elif launched is None:
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.id
        tags |= {"mlflow.source.name": str(PROJECT), "mlflow.source.type": "PROJECT", "mlflow.user": _user()}
        run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    else:
        run_id = launched
        client.update_run(launched, name=name)
    if reopen or launched:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    run = Run(run_id)
    try:
        yield run
        is_sent = run.flush()
    except BaseException as error:
        _close(run, error)
        if (advice := _advice(error, run_id)) is not None:
            raise Failure(advice) from error
        raise
    run.end(run.status, store.PATIENCE_SECONDS if is_sent else 0)


def _close(run: Run, error: BaseException) -> None:
    """Ends a run as `error` did its work; soon, where a scheduler or a full disk leaves no time."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    status = "KILLED" if is_interrupt else "FAILED"
    try:
        run.tags({"error": store.first_line(error), "pipeline.status": status})
        if not is_interrupt:
            run.text("traceback.txt", traceback.format_exc())
        run.end(status, INTERRUPTED_SECONDS if is_interrupt or _is_full(error) else store.PATIENCE_SECONDS)
    except OSError:  # a full disk takes no journal; the store may lie elsewhere
        with suppress(MlflowException):
            store.Client().set_terminated(run.id, status)


def _advice(error: BaseException, run_id: str) -> str | None:
    """What to do about a machine that has no more room; None for any other error."""
    go_on = f"what was kept before is whole; then go on with resume={run_id}"
    if _is_full(error):
        return f"no room to keep the run ({store.first_line(error)}): make room in {local.folder(run_id)}; {go_on}"
    if device.is_out_of_memory(error):
        return f"out of memory ({store.first_line(error)}): give it more; {go_on}"
    return None


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in FULL


@contextmanager
def attached(run_id: str) -> Iterator[Run]:
    """A run that another process started and will end."""
    run = Run(run_id)
    try:
        yield run
        run.flush()
    finally:
        run.release()


def fail(run_id: str, message: str, tags: Mapping[str, str] | None = None) -> None:
    """Closes a run whose process no longer can, once what it left unsent is sent."""
    send_leftovers(run_id)
    client = store.Client()
    for name, value in {"error": message, **(tags or {})}.items():
        client.set_tag(run_id, name, value)
    client.set_terminated(run_id, "FAILED")


def send_leftovers(run_id: str = "") -> None:
    """Sends what processes that are gone have left unsent, of one run or all, to the store in use.

    Raises ValueError when it is away.
    """
    for folder, header in journal.leftovers(run_id):
        if header["uri"] == store.uri():
            _replay(folder, header)


def complete(folder: Path, header: Mapping[str, str]) -> int:
    """Sends what is left of a journal to its own store, and closes its run where no process will.

    Returns how many entries were sent. Raises ValueError when the store is away.
    """
    store.use(header["uri"])
    num_sent = _replay(folder, header)
    stored = store.stored_run(header["run_id"])
    if stored.info.status == "RUNNING" and processes.is_dead(stored.data.tags):
        fail(header["run_id"], ENDED.format(stored.data.tags.get("process.pid")))
    local.remove_if_empty(header["run_id"])
    return num_sent


def _replay(folder: Path, header: Mapping[str, str]) -> int:
    try:
        return journal.replay(folder, Sender(header["run_id"], header["uri"]))
    except (journal.Transient, OSError) as error:
        raise ValueError(f"tracking store {header['uri']}: {store.first_line(error)}") from None


def note_error(run_id: str, message: str) -> None:
    """Leaves the message on a run that never started; MLflow's launcher sets its status."""
    with suppress(MlflowException):
        store.Client().set_tag(run_id, "error", message)


def _mark_dead_runs(client: store.Client, experiment_id: str) -> None:
    for stored in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        tags = stored.data.tags
        if processes.is_dead(tags):
            fail(stored.info.run_id, ENDED.format(tags.get("process.pid")))


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
