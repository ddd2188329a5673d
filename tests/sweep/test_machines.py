"""A study that several machines share: one run, no trial lost or doubled, and few queries."""

import json
import logging
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, event

from pipeline.params import SweepParams
from pipeline.sweep import study
from tests.conftest import Workplace
from tests.sweep.test_study import open_study
from tests.sweep.test_sweep import GRID, QUICK, finished, trials_of

log = logging.getLogger(__name__)


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request, tmp_path):
    return request.getfixturevalue("postgres") if request.param == "postgres" else f"sqlite:///{tmp_path}/optuna.db"


def close(a_study):
    a_study._storage._backend.engine.dispose()


def test_machines_that_start_a_study_together_get_one_run(storage):
    mine = open_study(storage)
    params = SweepParams(storage=storage, study_name="mine", model="vit")
    creators = []

    def start(number):
        with study.parent_run(params) as known:
            if not known.id:
                time.sleep(0.2)  # as long as a run takes to create
                creators.append(number)
                known.id = f"{number:032x}"
        return known.id

    with pytest.raises(KeyboardInterrupt), study.parent_run(params) as known:
        known.id = "f" * 32
        raise KeyboardInterrupt  # this machine ends before its run is there: another one creates it
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(start, range(1, 5)))
    assert len(creators) == 1
    assert found == {f"{creators[0]:032x}"}
    assert mine.user_attrs["mlflow.run_id"] in found
    close(mine)


@pytest.mark.slow
def test_a_study_of_a_hundred_trials_takes_no_more_queries_per_trial_than_a_new_one(tmp_path):
    workplace = Workplace(tmp_path)
    queries = Counter()

    def count(connection, cursor, statement, *_):
        queries[str(connection.engine.url.database).rpartition("/")[2]] += 1

    space = {"max_lr": {"low": 0.01, "high": 0.1, "log": True}}
    asked = {**QUICK, "limit_train": 100, "epochs": 1, "width": 4, "study_name": "many", "space": json.dumps(space)}
    per_start = []
    for earlier in (0, 100):
        if earlier:
            mine = optuna.load_study(study_name="many", storage=f"sqlite:///{tmp_path}/optuna.db")
            mine.add_trials(earlier * mine.trials[:1])
            close(mine)
        queries.clear()
        event.listen(Engine, "before_cursor_execute", count)
        try:
            assert workplace.run("sweep", **asked, num_trials=earlier + len(per_start) * 2 + 2) == 0
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        per_start.append(queries["optuna.db"])
    log.info("queries for two trials: %s", per_start)
    assert per_start[0] <= 350  # each trial takes about 100, and start and report take the rest
    assert per_start[1] <= 1.1 * per_start[0]


def run_on_machines(place, number, **params):
    """Runs the same sweep at the same moment in several processes without common locks, as on several machines."""
    started = []
    for each in range(number):
        # The locks between the processes of one machine are in this folder.
        place.environment["XDG_STATE_HOME"] = str(place.folder / f"machine{each}")
        started.append(place.start("sweep", **params))
    errors = [process.communicate(timeout=3000)[1] for process in started]
    assert [process.returncode for process in started] == [0] * number, errors[-1][-3000:]


@pytest.mark.slow
def test_two_machines_that_start_together_share_a_study(tmp_path, postgres):
    place = Workplace(tmp_path)
    run_on_machines(place, 2, **GRID, storage=postgres)
    ended = finished(place, "grid", storage=postgres)
    assert sum(ended.values()) == len(ended) == 6
    process_ids = {trial.user_attrs["process"]["process.pid"] for trial in trials_of(place, "grid", storage=postgres)}
    assert len(process_ids) == 2
    (parent,) = place.runs("sweep")
    assert parent.info.status == "FINISHED"
    assert sum(run.data.tags["optuna.state"] == "COMPLETE" for run in place.runs("trial")) == 4


@pytest.mark.slow
def test_sixteen_workers_on_four_machines_lose_and_double_none_of_200_trials(tmp_path, postgres_server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Workplace(tmp_path)
    place.uri = postgres_server.new_database("sixteen_runs")
    place.client = MlflowClient(place.uri)
    place.client.search_experiments()
    place.environment["MLFLOW_TRACKING_URI"] = place.uri
    storage = postgres_server.new_database("sixteen_trials")
    rates = [0.01 + 0.0001 * number for number in range(200)]
    asked = {**GRID, "limit_train": 60, "limit_test": 20, "batch_size": 16, "epochs": 1, "width": 4}
    asked |= {"num_trials": 200, "space": json.dumps({"max_lr": rates}), "storage": storage, "sweep_workers": 4}
    begun = time.monotonic()
    run_on_machines(place, 4, **asked)
    log.info("200 trials in %.0f s", time.monotonic() - begun)
    ended = finished(place, "grid", storage=storage)
    assert len(ended) == 200
    assert set(ended.values()) == {1}
    assert len(place.runs("sweep")) == 1
    complete = place.client.search_runs(["0"], "tags.`optuna.state` = 'COMPLETE'", max_results=1000)
    assert len(complete) == len({run.data.params["max_lr"] for run in complete}) == 200
