"""Runs the trials of a study. Each is a OneCycle training with its own MLflow run, reported to Optuna by epoch."""

import gc
import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import optuna
import torch
from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.history.initial_weights import prepare
from pipeline.models import weights
from pipeline.params import SweepParams, TrainParams
from pipeline.progress import meter, say
from pipeline.resume.training_state import checkpointed, has_state, restore
from pipeline.sweep import study, workers
from pipeline.sweep.space import Space
from pipeline.tracking import errors, lifecycle, locks, processes, store
from pipeline.tracking.run import Run, measured
from pipeline.training import costs, device
from pipeline.training.events import EpochEnd, Failure
from pipeline.training.recipe import Recipe

POLL_SECONDS = 2  # between two looks at the other workers, if no trial is left to start
# If one of these differs from the study's recipe, the trial must prepare a recipe of its own.
PREPARED = ("image_size", "first_size", "resize", "margin", "model", "weights", "freeze")
NOT_TRAINED_WITH = {"experiment", "from_study", "storage"}
# Errors of the disk, the GPU, the tracking store or the study's database: a trial with other values would fail too.
TROUBLES = (*errors.FAILURES, torch.AcceleratorError, StorageInternalError, SQLAlchemyError)
GIVEN_UP = "Cannot tell a FAIL trial"  # Optuna's message if another worker has ended the trial


class TrialFailed(Exception):
    """A trial failed because of its values, or was one too many. The study continues with the next trial."""


class Worker:
    """Runs trials of a study, one after the other. Other workers, on any machine, may run trials at the same time."""

    def __init__(self, params: SweepParams, space: Space, recipe: Recipe, parent: Run, number: int = 0) -> None:
        self._params = params
        self._recipe = recipe
        self._parent = parent
        self._study = study.open_or_create(params, space, recipe.splits.digest, recipe.precision, number)
        self._space = study.narrowed(self._study, space)
        self._total = workers.total_trials(params, space)
        self._lock = FileLock(locks.file(_lock_name(params)))
        self._finished = 0  # trials of the study, when this worker last counted them
        self._number = -1  # of the current trial; -1 until Optuna has given one

    def run(self) -> None:
        """Runs trials until the study has enough of them, and takes over trials of dead workers."""
        with meter("sweep", self._total, least=1) as self._progress:
            self._run_all()

    def _run_all(self) -> None:
        while True:
            # Under the lock, no other worker starts a trial between the count and the start of this one.
            locks.take(self._lock, "another worker of the study, which is starting a trial")
            try:
                workers.reclaim(self._study)
                count = workers.count(self._study)
                self._finished = count.finished
                self._progress.at(count.finished, str)
                self._parent.progress(count.finished, self._total)
                if count.finished >= self._total:
                    return
                if is_free := count.finished + count.running < self._total:
                    self._run_one()
                    gc.collect()  # the traceback of a failed trial refers to itself and keeps the network in memory
                    torch.cuda.empty_cache()  # what torch keeps for this process, other workers of the card cannot use
            finally:
                self._lock.release()
            if not is_free:
                _stop_with_parent()
                time.sleep(POLL_SECONDS)

    def _run_one(self) -> None:
        self._number = -1
        try:
            self._study.optimize(self._try, n_trials=1, catch=(TrialFailed,))
        except BaseException as error:
            if isinstance(error, UpdateFinishedTrialError) or str(error).startswith(GIVEN_UP):
                say(f"trial {self._number} was stopped: another worker considered this one dead and tries it again")
                return
            for trial in self._study.get_trials(states=(TrialState.FAIL,)):
                if trial.number == self._number and not workers.is_finished(trial):
                    workers.try_again(self._study, trial)
            raise

    def _try(self, trial: optuna.Trial) -> tuple[float, ...]:
        self._number = trial.number
        trial.set_user_attr("process", processes.this())
        values = self._space.suggest(trial)
        self._lock.release()
        if workers.is_surplus(self._study, trial.number, self._total):
            raise TrialFailed("one trial too many: another machine started one at the same time")
        title = f"trial {trial.number}  {_shown(values)}"
        objective = self._params.objectives[0]
        try:
            with lifecycle.start("trial", title, self._parent, reopen=_interrupted(trial)) as run:
                trial.set_user_attr("mlflow.run_id", run.id)
                with blamed_on_values():
                    numbers = self._train(trial, run, self._space.params(values))
                result = f"{objective} {numbers[objective]:.4f}"
                study_link = self._parent.link(self._params.study_name, self._parent.id)
                run.describe(f"{title}  {result}", f"**Trial {trial.number}** of {study_link} — {result}")
        except TrialFailed as error:
            trial.set_user_attr("error", str(error))
            say(f"{title}  failed: {error}")
            raise
        except (StorageInternalError, UpdateFinishedTrialError):  # the next request to the database reports it
            raise
        except Exception as error:
            reason = store.first_line(error.__cause__ or error)
            raise Failure(f"{reason} (trial {trial.number} does not count; the same command tries it again)") from error
        if run.status == "KILLED":
            say(f"{title}  pruned at {result}")
            raise optuna.TrialPruned
        say(f"{title}  {result}")
        self._parent.metrics({f"trial/{objective}": numbers[objective]}, step=trial.number)
        return tuple(numbers[name] for name in self._params.objectives)

    def _train(self, trial: optuna.Trial, run: Run, params: TrainParams) -> dict[str, float]:
        run.tags({"optuna.study": self._params.study_name, "optuna.trial": trial.number, "optuna.state": "FAIL"})
        run.tags({"dataset": params.dataset, "model": params.model})
        run.params(params.model_dump(exclude=NOT_TRAINED_WITH))
        is_prepared = all(getattr(params, name) == getattr(self._recipe.params, name) for name in PREPARED)
        recipe = replace(self._recipe, params=params) if is_prepared else prepare(params)
        run.tags(weights.tags(recipe.pretrained))
        numbers = _costs(recipe)
        run.metrics(numbers)
        for name, cost in numbers.items():
            trial.set_user_attr(name, cost)
        training = recipe.one_cycle(float(params.max_lr))
        if _interrupted(trial):
            restore(training, run.id)
        for epoch in training.log.epochs:
            self._is_poor(trial, epoch)  # reports them again: Optuna knows them only for the interrupted trial
        with closing(checkpointed(training, run, params.checkpoint_minutes)) as events:
            for event in events:
                count = f"{self._finished}/{self._total} trials  trial {trial.number}"
                text = partial(_progress, count, event.epoch, params.epochs)
                self._progress.at(self._finished + event.epoch / params.epochs, text)
                if isinstance(event, EpochEnd):
                    _stop_with_parent()
                    if self._is_poor(trial, event) and event.epoch < params.epochs:
                        run.status = "KILLED"
                        break
        epochs = training.log.epochs
        numbers |= _objectives(epochs[-1]) | {"train_seconds": sum(epoch.seconds for epoch in epochs)}
        # An accuracy is finite even if the logits are not: then every answer is the first class.
        for name in (*self._params.objectives, "valid/loss"):
            if not math.isfinite(numbers[name]):
                raise Failure(f"{name} became {numbers[name]}")
        trial.set_user_attr("train_seconds", numbers["train_seconds"])
        trial.set_user_attr("images_per_second", epochs[-1].images_per_second)
        run.metrics({"train_seconds": numbers["train_seconds"]})
        run.tags({"optuna.state": "PRUNED" if run.status == "KILLED" else "COMPLETE"})
        if not params.keep_checkpoints:
            run.no_states()
        return numbers

    def _is_poor(self, trial: optuna.Trial, epoch: EpochEnd) -> bool:
        # Optuna accepts reports only in studies with one objective.
        if len(self._params.objectives) > 1:
            return False
        trial.report(_objectives(epoch)[self._params.objectives[0]], epoch.epoch)
        return trial.should_prune()


@contextmanager
def blamed_on_values() -> Iterator[None]:
    """Inside this context, an error becomes TrialFailed, unless it is one of TROUBLES or another worker took over."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UpdateFinishedTrialError) or _is_trouble(error):
            raise
        raise TrialFailed(store.first_line(error)) from error


def _is_trouble(error: BaseException | None) -> bool:
    if isinstance(error, torch.AcceleratorError) and device.is_out_of_memory(error):  # it does not damage the device
        return False
    return error is not None and (isinstance(error, TROUBLES) or _is_trouble(error.__cause__ or error.__context__))


def _objectives(epoch: EpochEnd) -> dict[str, float]:
    return {name: value for name, value in measured(epoch).items() if name.startswith("valid/")}


def _interrupted(trial: optuna.Trial) -> str:
    """The run of the interrupted trial that this one continues, if it has saved a state; otherwise empty."""
    run_id = str(trial.user_attrs.get(workers.GOES_ON_WITH, ""))
    run = store.find(run_id) if run_id else None
    return run_id if run is not None and has_state(run_id, run.data.tags) else ""


def _costs(recipe: Recipe) -> dict[str, float]:
    return costs.measure(recipe.outline().to("meta"), recipe.params.image_size)


def _progress(count: str, epoch: float, epochs: int) -> str:
    return f"{count} epoch {epoch:.2f}/{epochs}"


def _shown(values: dict[str, Any]) -> str:
    texts = {name: f"{value:.2e}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return "  ".join(f"{name} {text}" for name, text in texts.items())


def _lock_name(params: SweepParams) -> str:
    identity = f"{study.storage_url(params.storage)} {params.study_name}"
    return f"study-{sha256(identity.encode()).hexdigest()[:16]}"


def _stop_with_parent() -> None:
    # Without this, a worker would continue unnoticed after its parent process was killed.
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise KeyboardInterrupt
