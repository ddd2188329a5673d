"""The Optuna study of a sweep: creates or reopens it, narrows its space, and finds its best trial."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.params import SweepParams, TrainParams
from pipeline.sweep import notes
from pipeline.sweep.entries import MACHINE, Range
from pipeline.sweep.parent_run import ParentRun, exclusive
from pipeline.sweep.samplers import SAMPLERS, OnGrid
from pipeline.sweep.space import SCHEDULE, Space
from pipeline.sweep.storage import Storage, engine_options
from pipeline.sweep.workers import quiet, take_over
from pipeline.text import without_passwords
from pipeline.tracking import database, store

# A worker without a heartbeat for the grace period counts as dead. A network may be away for a minute, and the worker
# may need another one to notice that it is back.
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 180
TABLES = ("studies", "trials", "version_info", "alembic_version")  # of Optuna: the first one and the last ones created
NARROWED_FACTOR = 5.0  # rates of trials may differ from the suggestions of range tests by this factor
STARTUP_TRIALS = 5  # trials that the median pruner waits for
MOST_TRIALS = 1_000_000  # most trials of a study, and the distance between the seeds of two workers
DIRECTIONS = {
    "valid/accuracy": StudyDirection.MAXIMIZE,
    "valid/balanced_accuracy": StudyDirection.MAXIMIZE,
    "valid/macro_f1": StudyDirection.MAXIMIZE,
    "valid/loss": StudyDirection.MINIMIZE,
    "flops": StudyDirection.MINIMIZE,
    "train_seconds": StudyDirection.MINIMIZE,
}
# Trials are judged late: the first epochs of a cycle say little about its end (rank correlation: docs/sweeps.md).
JUDGED_FROM = 0.6  # share of the epochs
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {
    "hyperband": lambda first, last: optuna.pruners.HyperbandPruner(min_resource=first, max_resource=last),
    "median": lambda first, last: optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=first),
    "none": lambda first, last: optuna.pruners.NopPruner(),
}


def storage_url(asked: str) -> str:
    """The URL of the studies' database: `asked`, or for `auto` a SQLite file beside MLflow's database."""
    return database.url(store.path_beside("optuna.db")) if asked == "auto" else asked


def connect(url: str) -> Storage:
    """The storage at `url`, with its tables created if needed. Raises ValueError if it cannot be used."""
    try:
        with quiet():
            database.prepare(url, TABLES, _make_tables)
            return Storage(
                url,
                engine_kwargs=engine_options(url),
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=take_over,
            )
    except (SQLAlchemyError, ImportError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(without_passwords(f"storage={url}: {store.first_line(error)}")) from None


def _make_tables(url: str) -> None:
    RDBStorage(url).engine.dispose()


@contextlib.contextmanager
def parent_run(params: SweepParams) -> Iterator[ParentRun]:
    """The MLflow run of the study; on all machines, only one process at a time is inside this context."""
    engine = connect(storage_url(params.storage)).engine
    try:
        with exclusive(engine, params.study_name) as run:
            yield run
    except SQLAlchemyError as error:
        raise StorageInternalError from error
    finally:
        engine.dispose()


@contextlib.contextmanager
def answering(storage: str, error: type[Exception]) -> Iterator[None]:
    """Inside this context, a failure of the storage raises an `error` with one line."""
    try:
        yield
    except (StorageInternalError, AssertionError) as failed:
        # If the end of a trial cannot be stored, Optuna then fails an assertion that it was.
        trouble = failed.__context__ if isinstance(failed, AssertionError) else failed
        if not isinstance(trouble, StorageInternalError):
            raise
        reason = store.first_line(trouble.__cause__ or trouble)
        raise error(f"storage={without_passwords(storage_url(storage))}: {reason}") from None


def open_or_create(
    params: SweepParams, space: Space, data_digest: str, precision: str, worker: int = 0
) -> optuna.Study:
    """The study that `params` name: a new one, or the existing one with its trials.

    Raises ValueError if another program created it, or if it was created with other settings: then its trials could not
    be compared. The message names the difference.
    """
    shared = {**space.declared(), "objectives": params.objectives, "data": data_digest, "precision": precision}
    if params.lr_range_first and (params.sampler == "grid" or not isinstance(space.entries.get("max_lr"), Range)):
        raise ValueError("lr_range_first: max_lr must be a range in the space, and the sampler must not be grid")
    declared = json.loads(json.dumps(shared))  # in the form in which the storage returns it
    directions = [DIRECTIONS[objective] for objective in params.objectives]
    storage = connect(storage_url(params.storage))
    pruner = PRUNERS[_pruner(params, space)](_first_judged(params), params.epochs)
    with quiet(), answering(params.storage, ValueError), notes.checked(params.study_name):
        study = optuna.create_study(
            study_name=params.study_name,
            storage=storage,
            directions=directions,
            pruner=pruner,
            load_if_exists=True,
        )
        # Trials are counted before the notes are read: a worker writes its notes first and starts trials after that.
        num_trials = len(study.get_trials(deepcopy=False))
        existing = notes.read(study).declared
    if not existing and (num_trials or study.directions != directions):
        raise ValueError(
            f"study_name={params.study_name}: a study of this name exists, but this project did not create it: "
            "choose another study_name, or another storage"
        )
    with quiet():
        # Each start gets another seed, or a continued study would get the same suggestions again. The seeds of workers
        # are so far apart that they never meet the seed of a later start.
        seed = params.seed + len(study.get_trials(deepcopy=False)) + MOST_TRIALS * worker
        study.sampler = OnGrid(SAMPLERS[params.sampler](seed, space))
    if not existing:
        study.set_user_attr("declared", declared)
        study.set_user_attr("machine", {name: getattr(space.base, name) for name in MACHINE})
    elif (existing := _with_defaults(existing, declared)) != declared:
        differences = [
            f"{name} {existing.get(name, 'fixed')} there, {declared.get(name, 'fixed')} here"
            for name in {**existing, **declared}
            if existing.get(name) != declared.get(name)
        ]
        raise ValueError(
            f"study_name={params.study_name}: the study has other settings ({'; '.join(differences)}): "
            "choose another study_name"
        )
    return study


def _with_defaults(existing: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    """`existing` with the defaults of parameters that are newer than the study: its trials had no other values."""
    newer = [name for name in declared if name not in existing and f"space.{name}" not in existing]
    fields = TrainParams.model_fields
    return {name: fields[name].default for name in newer if name in fields} | existing


def narrow(study: optuna.Study, space: Space, rates: Sequence[float]) -> tuple[float, float]:
    """Keeps the rates of the study's trials near the suggestions of range tests. Returns (lowest, highest).

    The range of the space stays if there are no suggestions, or if none is near the space.
    """
    entry = space.entries["max_lr"]
    assert isinstance(entry, Range)
    low = max([entry.low, *([min(rates) / NARROWED_FACTOR] if rates else [])])
    high = min([entry.high, *([max(rates) * NARROWED_FACTOR] if rates else [])])
    if low >= high:
        low, high = entry.low, entry.high
    study.set_user_attr("narrowed", {"max_lr": [low, high]})
    return low, high


def is_narrowed(study: optuna.Study) -> bool:
    """Whether range tests have already narrowed the study's rates."""
    return "narrowed" in study.user_attrs


def narrowed(study: optuna.Study, space: Space) -> Space:
    """The space for the study's trials, narrowed if range tests have done so."""
    for name, (low, high) in study.user_attrs.get("narrowed", {}).items():
        if isinstance(space.entries.get(name), Range):
            space = space.narrowed(name, low, high)
    return space


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """The COMPLETE trials, sorted by the first objective, best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return sorted(trials, key=lambda trial: sign * trial.values[0])


def best(name: str, storage: str) -> dict[str, Any]:
    """The parameters of a training with the study's best values, including those that all its trials share.

    Raises ValueError if there is no such study, or if it has no COMPLETE trial.
    """
    url = storage_url(storage)
    if (file := database.file(url)) and not file.exists():  # to connect would create it
        raise ValueError(f"from_study={name}: no such study: {file} does not exist; start a sweep first")
    opened = connect(url)
    with answering(storage, ValueError), notes.checked(name):
        known = optuna.get_all_study_names(opened)
    if name not in known:
        raise ValueError(f"from_study={name}: no such study in {without_passwords(url)} (studies: {', '.join(known)})")
    with answering(storage, ValueError), notes.checked(name):
        study = optuna.load_study(study_name=name, storage=opened)
        noted = notes.read(study)
        trials = completed(study)
    if not trials:
        raise ValueError(f"from_study={name}: the study has no COMPLETE trial")
    return noted.parameters(trials[0].params)


def _pruner(params: SweepParams, space: Space) -> str:
    reason = ""
    if len(params.objectives) > 1:
        reason = "Optuna prunes only studies with one objective"
    elif varied := space.varies(*SCHEDULE):
        reason = (
            f"the space varies {', '.join(varied)}, and trials are comparable only at the same point of one schedule"
        )
    if params.pruner == "auto":
        return "none" if reason else "hyperband"
    if reason and params.pruner != "none":
        raise ValueError(f"pruner={params.pruner}: {reason}; give pruner=none")
    return params.pruner


def _first_judged(params: SweepParams) -> int:
    """The first epoch after which a trial may be pruned. It is always after the peak of the cycle."""
    return math.ceil(max(JUDGED_FROM, params.pct_start) * params.epochs)
