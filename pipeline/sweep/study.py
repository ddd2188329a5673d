"""The Optuna study of a sweep: opened or found again, what it varies, and the best it has found."""

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

from pipeline.params import SweepParams
from pipeline.sweep import notes
from pipeline.sweep.entries import MACHINE, Range
from pipeline.sweep.samplers import SAMPLERS, OnGrid
from pipeline.sweep.space import SCHEDULE, Space
from pipeline.sweep.workers import is_alive_here, quiet, take_over
from pipeline.text import without_passwords
from pipeline.tracking import database, store

HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 60  # a worker that is silent for so long is dead
BUSY_SECONDS = 60  # how long a writer waits for another to be done with a sqlite file
TABLES = ("studies", "trials", "version_info", "alembic_version")  # Optuna's: the first, and those made last
NARROWED_FACTOR = 5.0  # how far trials may go from the rates that range tests suggest
STARTUP_TRIALS = 5  # before the median is asked
MOST_TRIALS = 1_000_000  # of a study, whose number seeds are made of
DIRECTIONS = {
    "valid/accuracy": StudyDirection.MAXIMIZE,
    "valid/loss": StudyDirection.MINIMIZE,
    "flops": StudyDirection.MINIMIZE,
    "train_seconds": StudyDirection.MINIMIZE,
}
# A cycle is judged late: its first epochs say little of its end (docs/sweeps.md: the rank correlation of the two).
JUDGED_FROM = 0.6  # of the epochs
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {
    "hyperband": lambda first, last: optuna.pruners.HyperbandPruner(min_resource=first, max_resource=last),
    "median": lambda first, last: optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=first),
    "none": lambda first, last: optuna.pruners.NopPruner(),
}


class Storage(RDBStorage):
    """Optuna's, but no worker that lives here is taken for dead because the database was away for a while."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Records one, where that can be done: the next will do, and an error would end Optuna's thread for good."""
        with contextlib.suppress(Exception):
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        silent = super()._get_stale_trial_ids(study_id)
        return [trial_id for trial_id in silent if not is_alive_here(self.get_trial(trial_id))]


def storage_url(asked: str) -> str:
    """The database of the studies: the URL asked for, or for `auto` a sqlite file beside MLflow's own."""
    return database.url(store.beside("optuna.db")) if asked == "auto" else asked


def connect(url: str) -> Storage:
    """The storage at `url`, its tables made where there are none. Raises ValueError when it cannot be had."""
    try:
        waits = {"connect_args": {"timeout": BUSY_SECONDS}} if url.startswith("sqlite") else {"pool_pre_ping": True}
        with quiet():
            database.prepare(url, TABLES, _make_tables)
            return Storage(
                url,
                engine_kwargs=waits,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=take_over,
            )
    except (SQLAlchemyError, ImportError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(without_passwords(f"storage={url}: {store.first_line(error)}")) from None


def _make_tables(url: str) -> None:
    RDBStorage(url).engine.dispose()


@contextlib.contextmanager
def answering(storage: str, error: type[Exception]) -> Iterator[None]:
    """Within, a storage that fails is an `error` in one line."""
    try:
        yield
    except (StorageInternalError, AssertionError) as failed:
        # Where a trial's end cannot be stored, Optuna asserts that it was, on the way out.
        trouble = failed.__context__ if isinstance(failed, AssertionError) else failed
        if not isinstance(trouble, StorageInternalError):
            raise
        reason = store.first_line(trouble.__cause__ or trouble)
        raise error(f"storage={without_passwords(storage_url(storage))}: {reason}") from None


def open_or_create(
    params: SweepParams, space: Space, data_digest: str, precision: str, worker: int = 0
) -> optuna.Study:
    """The study that `params` name, new or as its trials so far left it.

    Raises ValueError when it is of something else, or was declared otherwise, naming the difference: its trials could
    not be compared.
    """
    shared = {**space.declared(), "objectives": params.objectives, "data": data_digest, "precision": precision}
    if params.lr_range_first and (params.sampler == "grid" or not isinstance(space.entries.get("max_lr"), Range)):
        raise ValueError("lr_range_first: max_lr must be a range in the space, and the sampler no grid")
    declared = json.loads(json.dumps(shared))  # as the storage gives it back
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
        # Before the notes: a worker that opened it at the same time notes what it declares, and only then tries.
        num_trials = len(study.get_trials(deepcopy=False))
        there = notes.read(study).declared
    if not there and (num_trials or study.directions != directions):
        raise ValueError(
            f"study_name={params.study_name}: a study of that name is there that this project did not make: "
            "choose another study_name, or another storage"
        )
    with quiet():
        # Another seed after each start, or a study that goes on would be given the same suggestions again; workers'
        # seeds lie so far apart that none meets another's of a later start.
        seed = params.seed + len(study.get_trials(deepcopy=False)) + MOST_TRIALS * worker
        study.sampler = OnGrid(SAMPLERS[params.sampler](seed, space))
    if not there:
        study.set_user_attr("declared", declared)
        study.set_user_attr("machine", {name: getattr(space.base, name) for name in MACHINE})
    elif there != declared:
        differences = [
            f"{name} {there.get(name, 'fixed')} there, {declared.get(name, 'fixed')} here"
            for name in {**there, **declared}
            if there.get(name) != declared.get(name)
        ]
        raise ValueError(
            f"study_name={params.study_name} was declared otherwise ({'; '.join(differences)}): "
            "choose another study_name"
        )
    return study


def narrow(study: optuna.Study, space: Space, rates: Sequence[float]) -> tuple[float, float]:
    """Keeps the rates of the study's trials near what range tests suggest. Returns lowest and highest.

    They stay what the space says where nothing is suggested, or nothing near it is in the space.
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
    """Whether range tests have had their say."""
    return "narrowed" in study.user_attrs


def narrowed(study: optuna.Study, space: Space) -> Space:
    """The space as the study's trials are to use it."""
    for name, (low, high) in study.user_attrs.get("narrowed", {}).items():
        if isinstance(space.entries.get(name), Range):
            space = space.narrowed(name, low, high)
    return space


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """The COMPLETE trials, the best by the first objective first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return sorted(trials, key=lambda trial: sign * trial.values[0])


def best(name: str, storage: str) -> dict[str, Any]:
    """The parameters of a training with the study's best values, those that its trials shared included.

    Raises ValueError when there is no such study or no COMPLETE trial in it.
    """
    url = storage_url(storage)
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
        raise ValueError(f"from_study={name}: no trial of it is complete")
    return noted.parameters(trials[0].params)


def _pruner(params: SweepParams, space: Space) -> str:
    reason = ""
    if len(params.objectives) > 1:
        reason = "Optuna prunes studies of one objective only"
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
    """The first epoch after which a trial may be pruned, past the peak of its cycle in any case."""
    return math.ceil(max(JUDGED_FROM, params.pct_start) * params.epochs)
