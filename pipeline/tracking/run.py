"""One MLflow run. Parameters, numbers, figures, tables and models are on this disk at once and in MLflow soon after."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline import disk
from pipeline.disk import sync
from pipeline.params import as_text
from pipeline.progress import say
from pipeline.text import all_without_passwords, cell, note, without_passwords
from pipeline.tracking import limits, owners, processes, store, views
from pipeline.tracking.journal import Journal
from pipeline.tracking.sender import NOTE, Sender
from pipeline.tracking.state_writer import StateWriter
from pipeline.training.events import EpochEnd, Failure

QUIET_SECONDS = 5  # waiting for the store before a message says so


class Run:
    """One MLflow run, to write to. Several can be open at the same time, and any thread may write.

    When a method returns, its content is on this disk, but a state only after `finish_state`. After `flush` it is in
    MLflow too. A process gives signs of life only for runs of its own (`is_own`).
    """

    def __init__(self, run_id: str, experiment_id: str, is_own: bool = True) -> None:
        self.id = run_id
        self._experiment_id = experiment_id
        self.status = "FINISHED"  # the status at the end, unless an exception ends the run
        self._states_end = False
        self._sender = Sender(run_id, store.uri())
        self._journal = Journal(run_id, store.uri(), self._sender, signs=is_own)
        self._states = StateWriter(run_id, self._journal)

    @property
    def messages(self) -> list[str]:
        """Results of sent entries that users should see."""
        return list(self._sender.messages)

    def record(self, event: EpochEnd, beside: Mapping[str, float] | None = None) -> None:
        """Logs the numbers of an epoch, and those in `beside`, as one batch at step = epoch."""
        self.metrics({**measured(event), **(beside or {})}, step=event.epoch)

    def metrics(self, values: Mapping[str, float], step: int = 0, model_of: str = "") -> None:
        """Logs several numbers at one step.

        `model_of` is the id of a training's run. The numbers are then logged for its model too, as measured on the
        images of this run.
        """
        numbers = {name: float(value) for name, value in values.items()}
        self._journal.append("metrics", values=numbers, step=step, model_of=model_of)

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs the typed values as params.json, and as MLflow params those that its launcher has not logged yet."""
        self._journal.append("params", values={name: limits.param(as_text(value)) for name, value in values.items()})
        self.tags(owners.seal_of_params(self.id, values))
        self.json("params.json", dict(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Sets tags."""
        self._journal.append("tags", values={name: limits.tag(str(value)) for name, value in values.items()})

    def progress(self, done: int, total: int) -> None:
        """Logs how many of the run's steps or trials are done, for `status`."""
        self.tags({processes.PROGRESS: f"{done}/{total}"})

    def describe(self, name: str, markdown: str) -> None:
        """Sets the run's name and the description that the UI shows."""
        self._journal.append("name", name=limits.name(name))
        self.tags({NOTE: note(markdown)})

    def link(self, text: str, run_id: str) -> str:
        """Markdown for a description: a link to another run of the experiment."""
        return f"[{text}]({views.run_link(self._experiment_id, run_id)})"

    def view(self, text: str, name: str) -> str:
        """Markdown for a description: a link to a view of the experiment's runs."""
        return f"[{text}]({views.link(self._experiment_id, name)})"

    def keep_view(self, view: str) -> None:
        """Saves a view with the experiment, under this run's id."""
        self._journal.append("view", view=view)

    def figure(self, path: str, figure: Any) -> None:
        """Logs a matplotlib Figure as an image."""
        with self._file(path) as file:
            figure.savefig(file, dpi=150, bbox_inches="tight")

    def text(self, path: str, content: str) -> None:
        """Logs a text file."""
        with self._file(path) as file:
            file.write_text(without_passwords(content), encoding="utf-8")

    def bytes(self, path: str, content: bytes) -> None:
        """Logs a file with this content."""
        with self._file(path) as file:
            file.write_bytes(content)

    def table(self, path: str, table: pd.DataFrame) -> None:
        """Logs a table as CSV. `cell` writes its texts, so that a text looks the same in every table."""
        self.bytes(path, _harmless(table).to_csv(index=False).encode())

    @contextmanager
    def growing_table(self, path: str) -> Iterator[Callable[[pd.DataFrame], None]]:
        """A function that adds rows to a CSV table, written as by `table`. The table may be larger than memory.

        The table is logged when the context ends. If an exception ends it, the rows added so far are logged.
        """
        file = self._journal.file(Path(path).name)
        with file.open("w", encoding="utf-8", newline="") as rows:

            def add(more: pd.DataFrame) -> None:
                _harmless(more).to_csv(rows, index=False, header=not rows.tell(), lineterminator="\n")

            try:
                yield add
            finally:
                rows.close()
                sync(file)
                self._journal.append("file", file=self._journal.relative(file), path=path)

    def array(self, path: str, values: np.ndarray) -> None:
        """Logs an array as an .npy file, without pickle."""
        with self._file(path) as file:
            np.save(file, values, allow_pickle=False)

    def json(self, path: str, content: Any) -> None:
        """Logs plain data as JSON."""
        self.text(path, json.dumps(all_without_passwords(content), indent=2))

    def file(self, source: Path, path: str) -> None:
        """Logs a copy of a file."""
        with self._file(path) as file:
            shutil.copyfile(source, file)

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Logs which images the run used, with this project's own digest of all of them."""
        self._journal.append("dataset", name=name, digest=digest, source=json.dumps({"uri": source}), context=context)

    def model(self, weights: Path, example: np.ndarray, epoch: int) -> str:
        """Logs a pyfunc model, built from code and a weights file, without pickle. Returns its URI.

        `example` is a batch of images (N, 3, H, W) uint8. The numbers logged at step = `epoch` are logged for the model
        too.
        """
        copied, images = self._journal.file("classifier.safetensors"), self._journal.file("example.npy")
        shutil.copyfile(weights, copied)
        np.save(images, example)
        sync(copied)
        sync(images)
        relative = self._journal.relative
        self._journal.append("model", weights=relative(copied), example=relative(images), epoch=epoch)
        return f"runs:/{self.id}/model"

    def register(self, name: str, train_run_id: str, test_digest: str) -> None:
        """Registers the model of a training, which this run has evaluated, as a version of `name` in MLflow's registry.

        `registry.register` decides whether it becomes champion. Once the store has accepted it, the result is printed
        and added to the run's description, which must be set before.
        """
        self._journal.append("register", name=name, train_run_id=train_run_id, test_digest=test_digest)

    def state(self, tree: Any, step: int) -> None:
        """Saves the state of a training after `step` updates: copied now, on this disk soon, as an artifact later.

        Raises OSError if the state before could not be written.
        """
        self._states.save(tree, step)

    def finish_state(self, waits: bool = True) -> None:
        """Waits until the last state is on this disk; if not `waits`, only looks. Raises OSError if that failed."""
        self._states.finish(waits)

    def no_states(self) -> None:
        """Removes the saved states, on this disk and among the artifacts."""
        self._states.finish()
        self._journal.append("no_states")

    def no_states_once_finished(self) -> None:
        """Removes the states after MLflow knows that the run is FINISHED. Until then it can be resumed from them."""
        self._states_end = True

    def flush(self, seconds: float = store.PATIENCE_SECONDS) -> bool:
        """Waits at most `seconds` until everything logged is in MLflow. Returns whether it is.

        Raises Failure if MLflow refused something.
        """
        is_sent = self._journal.flush(min(seconds, QUIET_SECONDS))
        if not is_sent and seconds > QUIET_SECONDS:
            say(f"waiting up to {seconds:.0f} s until the tracking store {store.uri()} has all results")
            is_sent = self._journal.flush(seconds - QUIET_SECONDS)
        if self._journal.refused:
            raise Failure(f"not tracked: {self._journal.refused[0]}")
        return is_sent

    def end(self, status: str, seconds: float) -> None:
        """Closes the run. Entries that MLflow has not accepted within `seconds` stay in the journal."""
        with suppress(OSError):  # an interrupt may have come while a state was written
            self._states.finish()
        with suppress(FileNotFoundError):  # the journal was removed, and is now written again
            self._journal.append("status", status=status)
        if self._states_end and status == "FINISHED":
            self.no_states()
        self._journal.flush(seconds)
        self.release()

    def release(self) -> None:
        """Stops writing to the run, and leaves it open."""
        if self._journal.close():
            disk.remove_if_empty(self.id)

    @contextmanager
    def _file(self, path: str) -> Iterator[Path]:
        file = self._journal.file(Path(path).name)
        yield file
        sync(file)
        self._journal.append("file", file=self._journal.relative(file), path=path)


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns=_cell).apply(
        lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(_cell)
    )


def _cell(value: Any) -> Any:
    return cell(value) if isinstance(value, str) else value


def measured(event: EpochEnd) -> dict[str, float]:
    """The numbers of an epoch, by metric name."""
    values = {
        "train/loss": event.train_loss,
        "train/accuracy": event.train_accuracy,
        "valid/loss": event.valid_loss,
        "valid/accuracy": event.valid_accuracy,
        "valid/balanced_accuracy": event.valid_balanced_accuracy,
        "valid/macro_f1": event.valid_macro_f1,
        "lr": event.lr,
        "images_per_second": event.images_per_second,
    }
    return {name: value for name, value in values.items() if value is not None}
