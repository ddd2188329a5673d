"""A run is found by the start of its id, in any case and with blanks around it, if only one id begins with it."""

import sqlite3
from contextlib import closing

import pytest

from pipeline.history import lookup
from pipeline.history.initial_weights import prepare
from pipeline.params import CompareParams, EvaluateParams, RecipeParams
from tests.conftest import Workplace

TINY = {"experiment": "none", "limit_train": 60, "limit_test": 20, "model": "resnet9", "width": 4}
TRAIN = {**TINY, "batch_size": 32, "max_lr": 0.01, "epochs": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("runs"))
    assert place.run("train", **TRAIN) == 0
    return place


@pytest.fixture(scope="module")
def trained(place):
    return place.runs("train")[0].info.run_id


@pytest.fixture
def store_uri(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.uri)


@pytest.mark.parametrize("typed", ["{start}", " {START} ", "{ID}\n"])
def test_the_start_of_an_id_may_be_in_upper_case_and_have_blanks(place, trained, typed):
    asked = typed.format(start=trained[:8], START=trained[:8].upper(), ID=trained.upper())
    assert place.run("evaluate", run_id=asked) == 0
    evaluation = place.runs("evaluate")[0]
    assert evaluation.data.tags["train.run_id"] == evaluation.data.params["run_id"] == trained


def test_every_parameter_gets_complete_ids_of_runs_in_any_experiment(store_uri, place, trained):
    elsewhere = place.client.create_run(place.client.create_experiment("elsewhere")).info.run_id
    compared = lookup.in_full(CompareParams(runs=f" {trained[:8]}, {elsewhere[:8].upper()}"))
    assert compared.runs == (trained, elsewhere)
    assert lookup.in_full(EvaluateParams(run_id="LATEST ")).run_id == "latest"
    started = RecipeParams(**TINY, batch_size=32, weights=f" Run: {trained[:8].upper()}")
    assert lookup.in_full(started).weights == f"run:{trained}"
    recipes = [prepare(started), prepare(started.model_copy(update={"weights": f"run:{trained}"}))]
    assert recipes[0].fingerprint() == recipes[1].fingerprint()


@pytest.mark.parametrize("step", ["evaluate", "explain", "export", "report", "predict"])
def test_an_unknown_id_is_refused_in_one_line(place, capsys, step):
    assert place.run(step, run_id="0000") == 2
    assert capsys.readouterr().err == f"error: run_id=0000: no such run in {place.uri}\n"


def test_the_start_of_several_ids_is_refused(store_uri, place, trained):
    other = trained[:12] + 20 * "0"
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as database, database:
        database.execute("CREATE TEMP TABLE other AS SELECT * FROM runs WHERE run_uuid = ?", [trained])
        database.execute("UPDATE other SET run_uuid = ?", [other])
        database.execute("INSERT INTO runs SELECT * FROM other")
    with pytest.raises(
        ValueError, match=f"^run_id={trained[:12]}: several run ids begin with this; give more characters$"
    ):
        lookup.full_id(trained[:12], "run_id")
    assert lookup.full_id(trained[:13], "run_id") == trained
    place.client.delete_run(other)
    assert lookup.full_id(trained[:12], "run_id") == trained


def test_an_interrupted_run_is_resumed_by_the_start_of_its_id(place, trained, capsys):
    weights = f"run:{trained[:8]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.tracking.run.Run.model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert place.run("train", **{**TRAIN, "epochs": 2}, weights=weights) == 130
    (interrupted,) = (run for run in place.runs("train") if run.info.status == "KILLED")
    run_id = interrupted.info.run_id
    assert interrupted.data.params["weights"] == f"run:{trained}"
    assert "what is done is kept; to continue: python -m pipeline train --resume latest\n" in capsys.readouterr().err
    assert place.run("train", resume="ffff0000ffff") == 2
    assert "error: resume=ffff0000ffff: no such run in" in capsys.readouterr().err
    assert place.run("train", resume=f" {run_id[:9].upper()} ", weights=weights) == 0
    assert place.client.get_run(run_id).info.status == "FINISHED"


def test_metric_histories_of_a_store_that_is_away_are_refused_in_a_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"^tracking store http://127\.0\.0\.1:1: .*(refused|Max retries)"):
        lookup.metric_history("0" * 32, "lr")
