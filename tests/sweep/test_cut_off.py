"""A worker whose database and tracking server are cut off for a minute in the middle of a trial."""

import copy
import json
import subprocess
import time

import pytest
from sqlalchemy.engine import make_url

from tests.sweep.relay import Relay
from tests.sweep.test_sweep import GRID, finished, trials_of, wait_for
from tests.tracking.servers import ServedPlace, Server

CUT_SECONDS = 60
EPOCHS = 20
# Gives a program another host name, as on another machine: a live worker on this machine never counts as dead.
ELSEWHERE = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname far && exec "$@"', "sh"]


class Far(ServedPlace):
    """A workplace on another machine, with its own way to the same server."""

    def __init__(self, near, folder, uri):
        self.__dict__ = copy.copy(near.__dict__)
        self.folder = folder
        self.environment = {**near.environment, "MLFLOW_TRACKING_URI": uri, "XDG_STATE_HOME": str(folder / "state")}

    def command(self, *words, **params):
        return [*ELSEWHERE, *super().command(*words, **params)]


def trials_of_process(place, pid, storage):
    """The trials that the process has started."""
    return [
        each
        for each in trials_of(place, "grid", storage=storage)
        if each.user_attrs.get("process", {}).get("process.pid") == str(pid)
    ]


def trials_under_way(place, pid, storage):
    """The numbers of the running trials for which the process has reported an epoch: at most one."""
    found = [each for each in trials_of_process(place, pid, storage) if each.state.name == "RUNNING"]
    return [each.number for each in found if each.intermediate_values]


@pytest.mark.slow
@pytest.mark.parametrize("forget", [False, True], ids=["same connections", "new connections"])
def test_a_worker_that_is_cut_off_during_a_trial_continues_and_no_trial_is_lost_or_doubled(tmp_path, postgres, forget):
    url = make_url(postgres)
    asked = {**GRID, "epochs": EPOCHS, "num_trials": 4, "width": 8}
    asked |= {"space": json.dumps({"max_lr": [0.01, 0.02, 0.03, 0.04]})}
    with Server(tmp_path / "server") as server, Relay(url.port) as to_database, Relay(server.port) as to_server:
        for name in ("near", "far"):
            (tmp_path / name).mkdir()
        near = ServedPlace(tmp_path / "near", server.uri)
        far = Far(near, tmp_path / "far", f"http://127.0.0.1:{to_server.port}")
        if subprocess.run([*ELSEWHERE, "true"]).returncode:
            pytest.skip("this system does not let a program have another host name")
        through = url.set(port=to_database.port).render_as_string(hide_password=False)
        cut_off, other = far.start("sweep", **asked, storage=through), near.start("sweep", **asked, storage=postgres)
        wait_for(lambda: trials_under_way(near, cut_off.pid, postgres), cut_off)
        (number,) = trials_under_way(near, cut_off.pid, postgres)
        to_database.cut()
        to_server.cut()
        time.sleep(CUT_SECONDS)
        to_database.mend(forget=forget)
        to_server.mend(forget=forget)
        ended = [process.communicate(timeout=500)[1] for process in (cut_off, other)]
        assert [cut_off.returncode, other.returncode] == [0, 0], ended
        counts = finished(near, "grid", storage=postgres)
        assert len(counts) == 4 and set(counts.values()) == {1}
        trials = trials_of(near, "grid", storage=postgres)
        assert {trial.state.name for trial in trials} == {"COMPLETE"}, ended  # no other worker took one over
        assert number in {trial.number for trial in trials_of_process(near, cut_off.pid, postgres)}
        for trial in trials:
            history = near.client.get_metric_history(trial.user_attrs["mlflow.run_id"], "valid/accuracy")
            assert [point.step for point in history] == list(range(1, EPOCHS + 1))
