"""The study: which trials count as finished, what a restart finds, what is taken over and what is refused."""

import multiprocessing
import re
import socket
import sqlite3
import tempfile
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

import optuna
import pytest
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from deploy.postgres import Missing, Postgres
from pipeline.params import SweepParams, TrainParams
from pipeline.steps import sweep
from pipeline.sweep import figures, samplers, study, trials, workers
from pipeline.sweep.space import parse
from pipeline.tracking import processes, store
from pipeline.training import device
from pipeline.training.training import Diverged
from tests.conftest import free_port

SPACE = {"max_lr": {"low": 1e-3, "high": 1, "log": True}, "patch_size": [2, 4]}


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path}/optuna.db"


def open_study(storage, space=SPACE, **settings):
    """The study `mine`, which is created if there is none."""
    params = SweepParams(storage=storage, study_name="mine", model="vit", **settings)
    base = TrainParams(**{name: getattr(params, name) for name in TrainParams.model_fields})
    return study.open_or_create(params, parse(space, base), "digest", "fp32")


def suggest(a_study):
    """A new trial of the study with a rate."""
    trial = a_study.ask()
    trial.suggest_float("max_lr", 1e-3, 1, log=True)
    return trial


def fail(a_study, **attributes):
    """A failed trial of the study, with these attributes."""
    trial = suggest(a_study)
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    a_study.tell(trial, state=TrialState.FAIL)
    return trial


def test_a_trial_counts_once_it_is_finished(storage):
    mine = open_study(storage)
    mine.tell(suggest(mine), 0.5)
    mine.tell(suggest(mine), state=TrialState.PRUNED)
    fail(mine, error="the loss became nan")
    fail(mine)  # its worker was interrupted
    suggest(mine)
    assert workers.count(mine) == workers.Count(finished=3, running=1)


def test_the_last_of_too_many_trials_is_the_surplus_one(storage):
    mine = open_study(storage)
    mine.tell(suggest(mine), 0.5)
    first, second = suggest(mine), suggest(mine)
    assert not workers.is_surplus(mine, first.number, 2)
    assert workers.is_surplus(mine, second.number, 2)


def diverge():
    raise Diverged("the loss became nan")


def broken_gpu(message):
    raise torch.AcceleratorError(message)


@pytest.mark.parametrize(
    "do",
    [
        diverge,
        lambda: TrainParams(model="vit", patch_size=0),
        lambda: torch.empty(2**55, dtype=torch.uint8),
        partial(broken_gpu, "CUDA error: out of memory"),
    ],
)
def test_a_trial_fails_if_its_values_cause_an_error(do):
    with pytest.raises(trials.TrialFailed), trials.blamed_on_values():
        do()


def test_a_trial_does_not_fail_because_of_a_broken_gpu_a_full_disk_or_a_store_that_is_away(monkeypatch):
    with pytest.raises(torch.AcceleratorError), trials.blamed_on_values():
        broken_gpu("CUDA error: an illegal memory access was encountered")
    with pytest.raises(OSError, match="No space left"), trials.blamed_on_values():
        Path("/dev/full").write_text("x")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="tracking store"), trials.blamed_on_values():
        store.stored_run("a" * 32)


def _ask_and_die(storage):
    mine = open_study(storage)
    trial = suggest(mine)
    trial.set_user_attr("process", processes.this())


def test_the_trial_of_a_dead_process_fails_and_its_values_are_tried_again(storage):
    worker = multiprocessing.get_context("fork").Process(target=_ask_and_die, args=(storage,))
    worker.start()
    worker.join()
    mine = open_study(storage)
    (dead,) = mine.trials
    assert dead.state == TrialState.RUNNING
    alive = suggest(mine)
    alive.set_user_attr("process", processes.this())
    workers.reclaim(mine)
    workers.reclaim(mine)
    assert [trial.state for trial in mine.trials] == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    again = mine.ask()
    assert again.suggest_float("max_lr", 1e-3, 1, log=True) == dead.params["max_lr"]
    assert "process" not in again.user_attrs
    assert workers.count(mine) == workers.Count(finished=0, running=2)


def test_a_trial_whose_worker_died_before_it_named_its_process_is_tried_again(tmp_path, storage):
    mine = open_study(storage)
    dead = suggest(mine)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database, database:
        database.execute("UPDATE trials SET datetime_start = datetime('now', 'localtime', '-6 minutes')")
    suggest(mine)  # about to name its process
    workers.reclaim(mine)
    assert [trial.state for trial in mine.trials] == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert mine.trials[-1].params == dead.params
    assert workers.count(mine) == workers.Count(finished=0, running=1)


def test_a_heartbeat_that_cannot_be_recorded_raises_no_error(tmp_path, storage):
    connected = study.connect(storage)
    trial = connected.create_new_trial(connected.create_new_study([optuna.study.StudyDirection.MAXIMIZE]))
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("ALTER TABLE trial_heartbeats RENAME TO away")
        connected.record_heartbeat(trial)
        database.execute("ALTER TABLE away RENAME TO trial_heartbeats")
        connected.record_heartbeat(trial)
        assert database.execute("SELECT trial_id FROM trial_heartbeats").fetchall() == [(trial,)]


def test_the_same_end_of_a_trial_may_be_stored_twice_but_no_other_end(storage):
    connected = study.connect(storage)
    of_study = connected.create_new_study([optuna.study.StudyDirection.MAXIMIZE])
    ended, failed = (connected.create_new_trial(of_study) for _ in range(2))
    for _ in range(2):  # the database's first answer may have been lost
        assert connected.set_trial_state_values(ended, TrialState.COMPLETE, [0.5])
    with pytest.raises(UpdateFinishedTrialError):
        connected.set_trial_state_values(ended, TrialState.COMPLETE, [0.6])
    connected.set_trial_state_values(failed, TrialState.FAIL)  # by another worker, which tries it again
    with pytest.raises(UpdateFinishedTrialError):
        connected.set_trial_state_values(failed, TrialState.FAIL)
    connected.engine.dispose()


def test_a_study_waits_for_its_database(capsys):
    with tempfile.TemporaryDirectory(prefix="pipeline-away-") as folder:
        try:
            server = Postgres(Path(folder), free_port())
        except Missing as missing:
            pytest.skip(str(missing))
        with server:
            mine = open_study(server.new_database("mine"))
            trial = suggest(mine)
        back = threading.Timer(2, server.__enter__)
        back.start()
        try:
            trial.report(0.5, 1)
            mine.tell(trial, 0.5)
            assert [(each.value, each.intermediate_values) for each in mine.trials] == [(0.5, {1: 0.5})]
        finally:
            back.join()
            mine._storage._backend.engine.dispose()
            server.__exit__()
    assert "trying again for up to 120 s" in capsys.readouterr().err


def test_the_trial_of_a_silent_worker_is_taken_over_unless_its_process_is_alive_here(tmp_path, storage):
    mine = open_study(storage)
    for process in (processes.this(), {**processes.this(), "process.host": "elsewhere"}):
        trial = suggest(mine)
        trial.set_user_attr("process", process)
        mine._storage.record_heartbeat(trial._trial_id)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-4 minutes')")
    workers.reclaim(mine)
    assert [trial.state for trial in mine.trials] == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    assert mine.trials[2].params == mine.trials[1].params


def _take_over(storage, store_uri):
    store.use(store_uri)
    mine = open_study(storage)
    workers.take_over(mine, mine.trials[0])


def test_values_are_queued_before_waiting_for_the_tracking_store(storage):
    mine = open_study(storage)
    dead = fail(mine, **{"mlflow.run_id": "a" * 32})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        worker = multiprocessing.get_context("fork").Process(target=_take_over, args=(storage, address))
        worker.start()
        silent.settimeout(120)
        asked, _ = silent.accept()
        worker.kill()
        worker.join()
        asked.close()
    (waiting,) = mine.get_trials(states=(TrialState.WAITING,))
    assert waiting.params == dead.params


def test_values_are_given_up_if_their_workers_keep_dying(storage):
    mine = open_study(storage)
    suggest(mine)
    for _ in range(workers.MAX_RETRIES + 2):
        (running,) = mine.get_trials(states=(TrialState.RUNNING,))
        mine.tell(running.number, state=TrialState.FAIL)
        workers.try_again(mine, running)
        if not mine.get_trials(states=(TrialState.WAITING,)):
            break
        mine.ask()
    assert len(mine.trials) == 1 + workers.MAX_RETRIES


def test_a_continued_study_gets_new_suggestions(storage):
    rates = []
    for _ in range(4):
        mine = open_study(storage, sampler="random")
        trial = suggest(mine)
        rates.append(trial.params["max_lr"])
        mine.tell(trial, 0.5)
    assert len(set(rates)) == 4


def test_workers_that_start_later_get_other_suggestions(storage):
    params = SweepParams(storage=storage, study_name="mine", model="vit", sampler="random")
    declared = parse(SPACE, TrainParams(**{name: getattr(params, name) for name in TrainParams.model_fields}))
    rates = [suggest(study.open_or_create(params, declared, "digest", "fp32", worker)).params for worker in (1, 0)]
    rates.append(suggest(study.open_or_create(params, declared, "digest", "fp32", 0)).params)
    assert len({each["max_lr"] for each in rates}) == 3


def test_each_worker_gets_its_own_gpu_and_the_study_keeps_its_declared_device(storage, monkeypatch):
    monkeypatch.setattr(device, "available", lambda: ["cuda", "cuda:0", "cuda:1", "cpu"])
    declared = parse(SPACE, TrainParams(model="vit"))
    given = sweep._spaces(declared, 3)
    assert [each.params({"max_lr": 0.1}).device for each in given] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [each.declared() for each in given] == [declared.declared()] * 3
    mine = open_study(storage)
    assert mine.user_attrs["machine"]["device"] == "auto"


@pytest.mark.parametrize("sampler", sorted(samplers.SAMPLERS.keys() - {"grid"}))
def test_every_sampler_suggests_values_in_the_space(storage, sampler):
    for number in range(3):
        mine = open_study(storage, sampler=sampler)
        trial = mine.ask()
        drawn = parse(SPACE, TrainParams(model="vit", max_lr=0.1)).suggest(trial)
        assert 1e-3 <= drawn["max_lr"] <= 1
        mine.tell(trial, number)


def test_a_study_without_a_finished_trial_has_a_table(storage):
    mine = open_study(storage)
    assert figures.trials(mine).empty
    mine.enqueue_trial({"max_lr": 0.1, "patch_size": 4})
    suggest(mine)
    assert figures.trials(mine)[["state", "max_lr"]].to_numpy().tolist() == [["RUNNING", 0.1]]


def test_the_same_seed_suggests_the_same_values(tmp_path):
    first, second = (suggest(open_study(f"sqlite:///{tmp_path}/{i}.db", seed=5)).params for i in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("space", "settings", "difference"),
    [
        ({**SPACE, "patch_size": [2, 8]}, {}, "space.patch_size {'choices': [2, 4]} there, {'choices': [2, 8]} here"),
        ({"max_lr": SPACE["max_lr"]}, {}, "space.patch_size {'choices': [2, 4]} there, fixed here"),
        (SPACE, {"epochs": 3}, "epochs 12 there, 3 here"),
        (SPACE, {"objectives": "valid/accuracy,flops"}, "objectives ['valid/accuracy'] there"),
    ],
)
def test_other_settings_under_the_same_name_are_refused_with_the_difference(storage, space, settings, difference):
    open_study(storage)
    open_study(storage, num_trials=99, sampler="random", pruner="none", sweep_workers=3, device="cpu")  # may change
    with pytest.raises(ValueError, match=r"study_name=mine: the study has other settings") as error:
        open_study(storage, space, **settings)
    assert difference in str(error.value)
    assert "choose another study_name" in str(error.value)


def test_a_study_of_an_earlier_version_continues_only_with_the_default_of_a_new_parameter(storage):
    study = open_study(storage)
    study.set_user_attr("declared", {k: v for k, v in study.user_attrs["declared"].items() if k != "select_by"})
    assert open_study(storage).user_attrs["declared"].keys() == study.user_attrs["declared"].keys()
    with pytest.raises(
        ValueError, match=r"select_by accuracy there, macro_f1 here; objectives \['valid/accuracy'\] there"
    ):
        open_study(storage, select_by="macro_f1")


@pytest.mark.parametrize(
    ("directions", "num_trials"), [(["minimize"], 0), (["maximize", "minimize"], 0), (["maximize"], 1)]
)
def test_a_study_of_another_program_is_refused_and_not_changed(storage, directions, num_trials):
    theirs = optuna.create_study(study_name="mine", storage=storage, directions=directions)
    for _ in range(num_trials):
        theirs.tell(suggest(theirs), 0.5)
    with pytest.raises(ValueError, match=r"^study_name=mine: .* did not create it: choose another study_name"):
        open_study(storage)
    assert (len(theirs.trials), theirs.user_attrs) == (num_trials, {})


def test_a_study_that_another_worker_has_just_created_is_shared(storage):
    optuna.create_study(study_name="mine", storage=storage, direction="maximize")  # its attributes are not written yet
    open_study(storage).tell(suggest(open_study(storage)), 0.5)
    assert len(open_study(storage).trials) == 1


def test_the_best_trial_comes_with_all_parameters_of_its_training(storage):
    mine = open_study(storage, epochs=5)
    for rate, patch_size, value in [(0.1, 2, 0.7), (0.2, 4, 0.9), (0.3, 2, 0.8)]:
        mine.enqueue_trial({"max_lr": rate, "patch_size": patch_size})
        trial = suggest(mine)
        trial.suggest_categorical("patch_size", [2, 4])
        mine.tell(trial, value)
    best = study.best("mine", storage)
    assert (best["max_lr"], best["patch_size"], best["epochs"], best["model"]) == (0.2, 4, 5, "vit")
    assert TrainParams(**best).batch_size == 128


def test_the_best_trial_comes_with_the_declared_precision(storage):
    mine = open_study(storage, precision="fp32")
    mine.tell(suggest(mine), 0.5)
    assert study.best("mine", storage)["precision"] == "fp32"
    older = {name: value for name, value in mine.user_attrs["machine"].items() if name != "precision"}
    mine.set_user_attr("machine", older)
    assert "precision" not in study.best("mine", storage)


def test_the_best_trial_of_a_study_without_a_complete_one_is_refused(storage):
    fail(open_study(storage), error="x")
    with pytest.raises(ValueError, match=r"from_study=mine: the study has no COMPLETE trial"):
        study.best("mine", storage)
    with pytest.raises(ValueError, match=r"from_study=yours: no such study .*\(studies: mine\)"):
        study.best("yours", storage)


def test_asking_for_a_study_creates_no_database(tmp_path):
    missing = tmp_path / "optuna.db"
    with pytest.raises(ValueError, match=rf"from_study=mine: no such study: {missing} does not exist"):
        study.best("mine", f"sqlite:///{missing}")
    assert not missing.exists()


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("optuna.db", "storage=optuna.db"),
        ("sqlite:////nowhere/at/all/optuna.db", "cannot be created in /nowhere/at/all"),
        ("nosuch://host/db", "nosuch"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/db", "storage=postgresql+psycopg://me:***@"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_without_its_password(url, part):
    with pytest.raises(ValueError, match=re.escape(part)) as error:
        study.connect(url)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_a_read_only_storage_is_refused_in_one_line(tmp_path, storage):
    open_study(storage)
    with pytest.raises(ValueError, match="readonly database") as error:
        open_study(f"sqlite:///file:{tmp_path}/optuna.db?mode=ro&uri=true")
    assert "\n" not in str(error.value)


def test_a_damaged_study_is_refused_in_one_line(tmp_path, storage):
    open_study(storage)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as database:
        database.execute("ALTER TABLE trials RENAME COLUMN state TO gone")
    with pytest.raises(ValueError, match="no such column") as error:
        study.best("mine", storage)
    assert "\n" not in str(error.value)


def test_trials_with_one_schedule_and_one_objective_are_pruned(storage):
    assert isinstance(open_study(storage).pruner, optuna.pruners.HyperbandPruner)


@pytest.mark.parametrize(
    ("space", "settings", "reason"),
    [
        ({**SPACE, "epochs": [3, 6]}, {}, "the space varies epochs"),
        (SPACE, {"objectives": "valid/accuracy,flops"}, "only studies with one objective"),
    ],
)
def test_trials_that_cannot_be_compared_are_not_pruned(storage, space, settings, reason):
    with pytest.raises(ValueError, match=rf"pruner=median: .*{reason}.*; give pruner=none"):
        open_study(storage, space, pruner="median", **settings)
    assert isinstance(open_study(storage, space, **settings).pruner, optuna.pruners.NopPruner)


@pytest.mark.parametrize(("pruner", "pct_start", "first"), [("hyperband", 0.3, 6), ("median", 0.7, 7)])
def test_no_trial_is_pruned_before_most_of_its_cycle_is_done(storage, pruner, pct_start, first):
    mine = open_study(storage, epochs=10, pct_start=pct_start, pruner=pruner, sampler="random")
    first_pruned = []
    for number in range(30):
        trial = suggest(mine)
        for epoch in range(1, 11):
            trial.report(1 / (number + 1), epoch)
            if trial.should_prune():
                first_pruned.append(epoch)
                mine.tell(trial, state=TrialState.PRUNED)
                break
        else:
            mine.tell(trial, 1 / (number + 1))
    assert min(first_pruned) == first


def test_a_grid_study_ends_after_its_last_point(storage):
    space = {"max_lr": [0.1, 0.2], "patch_size": [2, 4]}
    params = SweepParams(storage=storage, study_name="grid", model="vit", sampler="grid", num_trials=50)
    declared = parse(space, TrainParams(model="vit"))
    assert workers.total_trials(params, declared) == 4
    mine = study.open_or_create(params, declared, "digest", "fp32")
    mine.optimize(lambda trial: declared.suggest(trial)["max_lr"], n_trials=4)
    assert len({tuple(trial.params.items()) for trial in mine.trials}) == 4


def test_range_tests_narrow_the_rate_once(storage):
    mine = open_study(storage)
    declared = parse(SPACE, TrainParams(model="vit"))
    assert study.narrowed(mine, declared) == declared
    assert study.narrow(mine, declared, [0.02, 0.04]) == pytest.approx((0.004, 0.2))
    assert study.is_narrowed(open_study(storage))
    entry = study.narrowed(mine, declared).entries["max_lr"]
    assert (entry.low, entry.high) == pytest.approx((0.004, 0.2))
    assert study.narrow(mine, declared, [1e-6]) == (1e-3, 1)
    assert study.narrow(mine, declared, []) == (1e-3, 1)
