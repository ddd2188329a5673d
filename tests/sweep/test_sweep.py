"""Studies as a user runs them: their results in MLflow and Optuna, whatever ends a trial or a worker."""

import gc
import itertools
import json
import math
import os
import signal
import sqlite3
import time
import weakref
from collections import Counter
from contextlib import closing
from pathlib import Path

import optuna
import pandas as pd
import psutil
import pytest
import torch
from safetensors.torch import save_file

from pipeline import models
from pipeline.sweep import study
from pipeline.training.recipe import Recipe
from tests.conftest import PROJECT, Workplace

QUICK = {"experiment": "none", "limit_train": 200, "limit_test": 40, "batch_size": 32, "epochs": 3}
# A grid, so that any number of workers tries the same values. The highest rate diverges.
GRID = {
    **QUICK,
    "optimizer": "sgd",
    "study_name": "grid",
    "sampler": "grid",
    "pruner": "none",
    "num_trials": 6,
    "space": json.dumps({"max_lr": [0.01, 0.05, 1000], "width": [4, 8]}),
    "div_factor": 1,
}
VIT = {"model": "vit", "dim": 24, "depth": 2, "heads": 2}


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


def trials_of(workplace, name, storage=None):
    opened = optuna.storages.RDBStorage(storage or f"sqlite:///{workplace.folder}/optuna.db")
    try:
        return optuna.load_study(study_name=name, storage=opened).trials
    finally:
        opened.remove_session()
        opened.engine.dispose()


def finished(workplace, name, **options):
    """The number of finished trials by (values, state)."""
    ended = [
        each
        for each in trials_of(workplace, name, **options)
        if each.state.name in ("COMPLETE", "PRUNED") or "error" in each.user_attrs
    ]
    return Counter((json.dumps(each.params, sort_keys=True), each.state.name) for each in ended)


def is_training(workplace, name, **options):
    """Whether a running trial of the study has reported an epoch."""
    return any(
        each.state.name == "RUNNING" and each.intermediate_values for each in trials_of(workplace, name, **options)
    )


def wait_for(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, process.stderr.read()
        try:
            if condition():
                return
        except Exception:  # the database does not exist yet
            pass
        time.sleep(0.2)
    raise AssertionError(f"the condition did not hold within {seconds} s")


def test_every_trial_is_a_child_run_with_the_right_state(workplace, capsys):
    # Six of the rates are too low to learn. Their trials are pruned after 60 % of the cycle.
    rates = [0.05, 1e-7, 2e-7, 3e-7, 4e-7, 5e-7, 6e-7, 1000]
    space = json.dumps({"max_lr": rates})
    sweep = {
        **GRID,
        "study_name": "states",
        "pruner": "hyperband",
        "num_trials": 8,
        "space": space,
        "limit_train": 400,
        "width": 8,
        "epochs": 6,
    }
    assert workplace.run("sweep", **sweep, select_by="loss") == 0
    (parent,) = workplace.runs("sweep")
    assert parent.info.status == "FINISHED" and "sweep/best_valid_loss" in parent.data.metrics
    children = {int(run.data.tags["optuna.trial"]): run for run in workplace.runs("trial")}
    trials = {trial.number: trial for trial in trials_of(workplace, "states")}
    assert children.keys() == trials.keys() == set(range(8))
    states = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    assert {trial.state.name for trial in trials.values()} == set(states)
    for number, run in children.items():
        trial = trials[number]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["optuna.state"] == trial.state.name
        assert run.info.status == states[trial.state.name]
        assert float(run.data.params["max_lr"]) == trial.params["max_lr"]
        assert trial.user_attrs["mlflow.run_id"] == run.info.run_id
        history = workplace.client.get_metric_history(run.info.run_id, "valid/loss")
        assert {point.step for point in history} == trial.intermediate_values.keys()
        assert ("error" in run.data.tags) == (trial.state.name == "FAIL")
        if trial.state.name == "FAIL":
            assert trial.params["max_lr"] == 1000
            assert "the loss became" in run.data.tags["error"]
        if trial.state.name == "PRUNED":
            assert len(history) == 4  # of six epochs
    best = min((trial.value, trial) for trial in trials.values() if trial.state.name == "COMPLETE")[1]
    assert parent.data.metrics["sweep/best_valid_loss"] == best.value
    assert float(parent.data.tags["best.max_lr"]) == best.params["max_lr"] == 0.05
    assert {"study.csv", "history.png", "intermediate_values.png"} <= workplace.artifacts(parent.info.run_id)
    assert "best valid/loss" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_over_patch_size_measures_accuracy_and_cost_and_train_takes_its_best_trial(workplace, tmp_path):
    space = json.dumps({"max_lr": {"low": 1e-4, "high": 0.5, "log": True}, "patch_size": [16, 32]})
    sweep = {
        **QUICK,
        **VIT,
        "limit_train": 400,
        "study_name": "cost",
        "num_trials": 4,
        "space": space,
        "lr_range_first": "true",
    }
    assert workplace.run("sweep", **sweep, objectives="valid/accuracy,flops") == 0
    (parent,) = workplace.runs("sweep")
    ranges = workplace.runs("lr_range")
    assert {run.data.params["patch_size"] for run in ranges} == {"16", "32"}
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in ranges)
    trials = trials_of(workplace, "cost")
    suggested = {int(run.data.params["patch_size"]): run.data.metrics["lr_range/suggestion"] for run in ranges}
    for trial in trials[:2]:
        assert trial.params["max_lr"] == suggested[trial.params["patch_size"]]
    for trial in trials:
        assert min(suggested.values()) / 5 <= trial.params["max_lr"] <= max(suggested.values()) * 5
        assert trial.user_attrs["tokens"] == (32 / trial.params["patch_size"]) ** 2 + 1
        assert trial.values[1] == trial.user_attrs["flops"] > 0
    run = workplace.runs("trial")[0]
    assert {"flops", "parameters", "tokens", "train_seconds", "images_per_second"} <= run.data.metrics.keys()
    files = workplace.artifacts(parent.info.run_id)
    assert {"pareto_front.png", "patch_size_max_lr.png", "patch_size_max_lr.csv", "contour_flops.png"} <= files
    table = pd.read_csv(workplace.client.download_artifacts(parent.info.run_id, "patch_size_max_lr.csv", str(tmp_path)))
    assert table["patch_size"].tolist() == [16, 32]

    assert "Train with it: `python -m pipeline train --from_study cost`" in parent.data.tags["mlflow.note.content"]
    assert workplace.run("train", experiment="none", from_study="cost", epochs=1) == 0
    (training,) = workplace.runs("train")
    best = max(trials, key=lambda trial: trial.values[0])
    assert float(training.data.params["max_lr"]) == best.params["max_lr"]
    assert training.data.params["patch_size"] == str(best.params["patch_size"])
    assert (training.data.params["dim"], training.data.params["epochs"]) == ("24", "1")


def test_an_experiment_trains_with_the_best_of_its_sweep(workplace):
    space = json.dumps({"max_lr": [0.001, 0.01], "patch_size": [16]})
    steps = {"steps": "sweep,train,evaluate", "num_trials": 2, "sampler": "grid", "epochs": 1}
    assert workplace.run("main", **{**QUICK, **VIT, **steps}, space=space) == 0
    (sweep,), (training,) = workplace.runs("sweep"), workplace.runs("train")
    assert training.data.params["max_lr"] == sweep.data.tags["best.max_lr"]
    assert "test/accuracy" in workplace.runs("evaluate")[0].data.metrics


def test_an_experiment_does_not_store_the_password_of_its_studys_database(workplace, tmp_path):
    storage = "postgresql+psycopg://optuna:secret@127.0.0.1:1/optuna"
    space = json.dumps({"max_lr": [0.01, 0.05]})
    assert workplace.run("main", **QUICK, steps="sweep,train", space=space, storage=storage) == 2
    (run,) = workplace.runs("main")
    content = Path(workplace.client.download_artifacts(run.info.run_id, "params.json", str(tmp_path))).read_text()
    assert "optuna:***@127.0.0.1" in content
    assert "secret" not in content + str(run.data.params) + str(run.data.tags)


def test_a_series_an_experiment_and_a_training_store_no_password_of_the_parameter_storage(workplace, tmp_path):
    asked = {**QUICK, "width": 4, "max_lr": 0.01, "storage": "postgresql+psycopg://optuna:secret@database/optuna"}
    assert workplace.run("main", **asked | {"epochs": 1}, steps="train") == 0
    assert (
        workplace.run("train", **asked, num_seeds=2, device="cuda") == 2
    )  # a series stores its parameters at the start
    (series,), (experiment,), (training,) = map(workplace.runs, ("seeds", "main", "train"))
    kept = [(run, "params.json") for run in (series, experiment, training)]
    for run, name in [*kept, (experiment, "report.html")]:
        content = Path(workplace.client.download_artifacts(run.info.run_id, name, str(tmp_path))).read_text()
        assert "optuna:***@database" in content
        assert "secret" not in content + str(run.data.params) + str(run.data.tags)


@pytest.mark.parametrize("resume", ["auto", pytest.param("latest", marks=pytest.mark.slow)])
def test_an_experiment_that_leaves_out_the_sweep_of_its_file_can_be_resumed(workplace, resume):
    file = str(PROJECT / "experiments/sweep_vit.yaml")
    short = {**QUICK, **VIT, "experiment": file, "steps": "train", "patch_size": 16, "max_lr": 0.01, "epochs": 1}
    asked = {**short, "storage": "postgresql+psycopg://optuna:secret@database/optuna"}
    assert workplace.run("main", **asked, device="cuda") == 2  # this machine has none
    assert workplace.run("main", **asked, device="cpu", resume=resume) == 0
    (run,) = workplace.runs("main")
    assert run.info.status == "FINISHED"


def test_a_study_without_a_complete_trial_says_so_in_one_line(workplace, capsys):
    hopeless = {**GRID, "space": json.dumps({"max_lr": [1000], "width": [4]})}
    assert workplace.run("sweep", **hopeless) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: study grid has no complete trial (1 failed; first error: the loss became")
    assert workplace.runs("sweep")[0].info.status == "FAILED"


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([math.nan, math.nan], "valid/loss was not a finite number: lower max_lr"),
        pytest.param([2.3, 2.4], "pruner=none in a new study lets every trial end", marks=pytest.mark.slow),
    ],
)
def test_a_study_with_only_pruned_trials_says_why_in_one_line(workplace, capsys, reports, reason):
    command = {**QUICK, "study_name": "mine", "space": json.dumps({"max_lr": {"low": 0.01, "high": 0.1}}), "width": 4}
    command |= {"epochs": 1, "objectives": "valid/loss"}
    assert workplace.run("sweep", **command, num_trials=1) == 0
    opened = study.connect(f"sqlite:///{workplace.folder}/optuna.db")
    declared = optuna.load_study(study_name="mine", storage=opened).user_attrs["declared"]
    optuna.delete_study(study_name="mine", storage=opened)
    again = optuna.create_study(study_name="mine", storage=opened, direction="minimize")
    again.set_user_attr("declared", declared)
    for value in reports:
        trial = again.ask()
        trial.suggest_float("max_lr", 0.01, 0.1)
        trial.report(value, 1)
        again.tell(trial, state=optuna.trial.TrialState.PRUNED)
    capsys.readouterr()
    assert workplace.run("sweep", **command, num_trials=2) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"error: study mine has no complete trial (2 pruned; {reason})"


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["valid/loss", "valid/accuracy"])
def test_a_trial_whose_validation_is_not_finite_fails_and_counts(workplace, objective):
    weights = models.build("resnet18", num_classes=10, image_size=32, width=4).state_dict()
    # Validation uses these negative variances, which have no square root. Training uses the variances of its batches.
    weights |= {name: -1e9 * value for name, value in weights.items() if name.endswith("running_var")}
    save_file(weights, workplace.folder / "broken.safetensors")
    space = json.dumps({"max_lr": {"low": 0.01, "high": 0.1}})
    params = {**QUICK, "epochs": 1, "width": 4, "weights": "broken.safetensors", "objectives": objective}
    name = f"broken by {objective.removeprefix('valid/')}"
    params |= {"space": space, "num_trials": 2, "study_name": name}
    workplace.start("sweep", **params).communicate(timeout=60)
    assert [trial.user_attrs.get("error") for trial in trials_of(workplace, name)] == ["valid/loss became nan"] * 2


def run_out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_the_memory_of_a_trial_is_free_before_the_next_begins(workplace, monkeypatch):
    networks, alive = [], []

    def model(self, seed, build=Recipe.model):
        alive.append(sum(network() is not None for network in networks))
        network = build(self, seed)
        networks.append(weakref.ref(network))
        if len(networks) == 2:
            network.register_forward_hook(run_out_of_memory)
        return network

    monkeypatch.setattr(Recipe, "model", model)
    monkeypatch.setattr(gc, "enable", lambda: None)  # the command would turn it on again
    space = json.dumps({"max_lr": [0.01, 1000], "width": [4, 5]})  # with the higher rate, every other trial fails
    gc.disable()
    try:
        assert workplace.run("sweep", **{**GRID, "model": "resnet9", "num_trials": 4, "space": space}) == 0
    finally:
        monkeypatch.undo()
        gc.enable()
    trials = trials_of(workplace, "grid")
    assert {trial.state.name for trial in trials} == {"COMPLETE", "FAIL"}
    assert "out of memory" in trials[1].user_attrs["error"]
    assert alive == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ({"space": json.dumps({"patch_size": [4, 5]}), "model": "vit", "max_lr": 0.1}, "patch_size=5 does not divide"),
        ({"space": "patch_size: [4]"}, "expected JSON"),
        ({"space": json.dumps({"max_lr": [0.1]}), "valid_fraction": 0}, "compared on the validation split"),
        ({"space": json.dumps({"max_lr": [0.1], "batch_size": [32, 500]})}, "batch_size=500 is more than"),
        ({"space": json.dumps({"max_lr": [0.1]}), "sampler": "tbe"}, "did you mean tpe?"),
        ({"space": json.dumps({"max_lr": [0.1]}), "objectives": "test/accuracy"}, "objectives"),
        (
            {"space": json.dumps({"max_lr": [0.1]}), "storage": "sqlite:////nowhere/o.db"},
            "cannot be created in /nowhere",
        ),
        ({}, "nothing to vary"),
        ({"experiment": "auto", "model": "resnet9"}, "nothing to vary; give a space, such as space="),
    ],
)
def test_bad_input_is_one_line_and_creates_no_run(workplace, capsys, params, part):
    assert workplace.runs() == []
    capsys.readouterr()
    assert workplace.run("sweep", **{**QUICK, **params}) == 2
    (line,) = without_device(capsys.readouterr().err)
    assert part in line
    assert workplace.runs() == []


@pytest.mark.slow
def test_a_killed_study_is_finished_by_two_workers(workplace):
    command = {**GRID, "sweep_workers": 2, "epochs": 6}
    killed = workplace.start("sweep", **{**command, "sweep_workers": 1})
    wait_for(lambda: sum(finished(workplace, "grid").values()) >= 1 and is_training(workplace, "grid"))
    killed.kill()
    killed.communicate()
    before = finished(workplace, "grid")
    assert "RUNNING" in {trial.state.name for trial in trials_of(workplace, "grid")}

    done = workplace.mlflow_run("sweep", **command)
    assert done.returncode == 0, done.stderr[-3000:]
    after = finished(workplace, "grid")
    states = {0.01: "COMPLETE", 0.05: "COMPLETE", 1000.0: "FAIL"}
    points = itertools.product(states, [4, 8])
    assert after == Counter((json.dumps({"max_lr": lr, "width": width}), states[lr]) for lr, width in points)
    assert before <= after
    (parent,) = workplace.runs("sweep")
    assert parent.info.status == "FINISHED"
    (second,) = (run for run in workplace.runs() if "step" not in run.data.tags)  # the new run of `mlflow run`
    assert parent.info.run_id in second.data.tags["mlflow.note.content"]
    runs = {run.info.run_id: run for run in workplace.runs("trial")}
    assert "RUNNING" not in {run.info.status for run in runs.values()}
    epochs = {}
    for trial in trials_of(workplace, "grid"):
        if run_id := trial.user_attrs.get("goes_on_with"):
            assert trial.user_attrs["mlflow.run_id"] == run_id  # it continues the run of its dead worker
            epochs[run_id] = [point.step for point in workplace.client.get_metric_history(run_id, "valid/accuracy")]
            assert runs[run_id].data.tags["optuna.trial"] == str(trial.number)
    assert epochs
    assert all(points == list(range(1, len(points) + 1)) for points in epochs.values())


@pytest.mark.slow
def test_a_failing_storage_is_one_line_and_the_study_continues_once_it_is_back(workplace):
    space = json.dumps({"max_lr": {"low": 0.01, "high": 0.1}})
    command = {**QUICK, "study_name": "mine", "space": space, "width": 4, "epochs": 1, "num_trials": 1}
    assert workplace.run("sweep", **command) == 0
    command["num_trials"] = 2
    with closing(sqlite3.connect(workplace.folder / "optuna.db")) as database:
        database.execute("CREATE TRIGGER broken BEFORE INSERT ON trial_values BEGIN INSERT INTO gone VALUES (1); END")
    process = workplace.start("sweep", **command)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    assert err.splitlines()[-1].startswith("error: storage=sqlite:///")
    assert "no such table: main.gone" in err
    assert "Traceback" not in err
    assert workplace.runs("sweep")[0].info.status == "FAILED"
    with closing(sqlite3.connect(workplace.folder / "optuna.db")) as database:
        database.execute("DROP TRIGGER broken")
    assert workplace.run("sweep", **command) == 0
    assert sum(state == "COMPLETE" for _, state in finished(workplace, "mine").elements()) == 2


def test_an_error_not_caused_by_values_ends_the_sweep_and_its_trial_does_not_count(workplace, capsys):
    space = json.dumps({"max_lr": {"low": 0.01, "high": 0.1}})
    command = {**QUICK, "study_name": "mine", "space": space, "width": 4, "epochs": 1, "num_trials": 2}
    with closing(sqlite3.connect(workplace.folder / "mlflow.db")) as database:
        refuse = "BEGIN SELECT RAISE(ABORT, 'its disk is full'); END"
        database.execute(f"CREATE TRIGGER full BEFORE INSERT ON runs WHEN NEW.name LIKE 'trial %' {refuse}")
    assert workplace.run("sweep", **command) == 1
    err = capsys.readouterr().err
    assert "its disk is full (trial 0 does not count; the same command tries it again)" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not finished(workplace, "mine")
    with closing(sqlite3.connect(workplace.folder / "mlflow.db")) as database:
        database.execute("DROP TRIGGER full")
    assert workplace.run("sweep", **command) == 0
    refused, again, another = trials_of(workplace, "mine")
    assert [trial.state.name for trial in (refused, again, another)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert again.params == refused.params


def test_a_trial_that_another_worker_took_over_ends_and_the_next_begins(workplace, capsys):
    space = json.dumps({"max_lr": {"low": 0.01, "high": 0.1}})
    command = {**QUICK, "study_name": "mine", "space": space, "width": 4, "epochs": 2, "num_trials": 1}
    study.connect(f"sqlite:///{workplace.folder}/optuna.db").engine.dispose()  # creates its tables
    with closing(sqlite3.connect(workplace.folder / "optuna.db")) as database:
        is_first = "(SELECT number FROM trials WHERE trial_id = NEW.trial_id) = 0"
        give_up = "BEGIN UPDATE trials SET state = 'FAIL' WHERE trial_id = NEW.trial_id; END"
        database.execute(f"CREATE TRIGGER g AFTER INSERT ON trial_intermediate_values WHEN {is_first} {give_up}")
    assert workplace.run("sweep", **command) == 0
    assert "trial 0 was stopped: another worker considered this one dead" in capsys.readouterr().err
    first, second = trials_of(workplace, "mine")
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert "error" not in first.user_attrs


@pytest.mark.slow
@pytest.mark.parametrize("sweep_workers", [1, 2])
def test_ctrl_c_closes_the_running_trials_and_the_study_can_continue(workplace, sweep_workers):
    command = {**GRID, "sweep_workers": sweep_workers, "epochs": 30}
    process = workplace.start("sweep", **command)
    wait_for(lambda: is_training(workplace, "grid"), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert {run.info.status for run in workplace.runs("sweep")} == {"KILLED"}
    assert "RUNNING" not in {run.info.status for run in workplace.runs("trial")}
    trials = trials_of(workplace, "grid")
    interrupted = [each for each in trials if each.state.name == "FAIL" and "error" not in each.user_attrs]
    waiting = [each for each in trials if each.state.name == "WAITING"]
    assert "RUNNING" not in {each.state.name for each in trials}
    assert [each.params for each in waiting] == [each.params for each in interrupted] != []
    assert workplace.run("sweep", **{**command, "sweep_workers": 1}) == 0
    assert sum(finished(workplace, "grid").values()) == 6


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.2, 2])
def test_ctrl_c_while_workers_import_is_one_line(workplace, seconds):
    process = workplace.start("sweep", start_new_session=True, **{**GRID, "sweep_workers": 2})
    wait_for(lambda: fork_servers(process), process)
    servers = fork_servers(process)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # like a terminal, to every process of the group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert without_device(err) == ["interrupted"]
    assert not psutil.wait_procs(servers, timeout=5)[1]
    assert [run.info.status for run in workplace.runs("sweep")] == ["KILLED"]


def without_device(err):
    """The lines of standard error, except the one that says which device is used."""
    return [line for line in err.split("\n") if line and not line.startswith("device ")]


def fork_servers(process):
    found = psutil.Process(process.pid).children()
    return [each for each in found if any("multiprocessing.forkserver" in word for word in each.cmdline())]
