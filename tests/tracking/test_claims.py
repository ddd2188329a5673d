"""If several processes try to resume a run at the same moment, exactly one succeeds."""

import contextlib
import multiprocessing
import os
import threading
import time

import pytest

from pipeline.tracking import claims, lifecycle, processes, recovery, store

NUM_PROCESSES = 4


def resume_run(folder, uri, step, run_id, number, is_elsewhere, barrier, answers):
    """Tries to resume a run at the same moment as the other processes. Puts the error message, or "", in `answers`."""
    os.environ["XDG_STATE_HOME"] = str(folder / (f"state-{number}" if is_elsewhere else "state"))
    with contextlib.chdir(folder):
        store.use(uri)
        store.experiment_id()
        barrier.wait()
        try:
            with lifecycle.start(step, "continued", reopen=run_id) as run:
                run.metrics({"number": number}, step=number)
                run.flush()
                barrier.wait()
            answers.put("")
        except ValueError as error:
            barrier.wait()
            answers.put(str(error))


def resume_together(place, step, run_id, is_elsewhere):
    """The answers of `resume_run` in several processes at the same moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tracking.test_claims"])  # imported once, not by each process
    barrier, answers = context.Barrier(NUM_PROCESSES), context.Queue()
    args = (place.folder, place.uri, step, run_id)
    started = [
        context.Process(target=resume_run, args=(*args, number, is_elsewhere, barrier, answers))
        for number in range(NUM_PROCESSES)
    ]
    for process in started:
        process.start()
    found = [answers.get(timeout=120) for _ in started]
    for process in started:
        process.join()
    return found


@pytest.mark.parametrize(
    ("is_elsewhere", "was"), [pytest.param(False, "killed", marks=pytest.mark.slow), (True, "interrupted")]
)
def test_exactly_one_of_several_processes_resumes_a_run(place, is_elsewhere, was):
    gone = processes.as_tags({**processes.this(), "process.pid": "0"})
    run_id = place.client.create_run("0", tags={"step": "train", **gone}).info.run_id
    if was == "interrupted":
        place.client.set_terminated(run_id, "KILLED")
    refused = sorted(resume_together(place, "train", run_id, is_elsewhere))
    assert refused[0] == ""
    assert all(f"run {run_id} is still running" in answer for answer in refused[1:])
    stored = place.client.get_run(run_id)
    assert (stored.info.status, "error" in stored.data.tags) == ("FINISHED", False)
    assert len(place.client.get_metric_history(run_id, "number")) == 1


def test_a_run_that_another_process_has_resumed_is_not_closed_as_dead(place):
    gone = processes.as_tags({**processes.this(), "process.pid": "0"})
    run_id = place.client.create_run("0", tags={"step": "train", **gone}).info.run_id
    with lifecycle.start("train", "continued", reopen=run_id):
        recovery._close_dead_run(run_id)
        assert place.client.get_run(run_id).info.status == "RUNNING"


def test_a_process_that_waits_for_a_lock_says_so_and_gives_up(place, monkeypatch, capsys):
    monkeypatch.setattr(claims, "SILENT_SECONDS", 0.1)
    monkeypatch.setattr(claims, "LOCK_SECONDS", 0.3)
    begun, ended = threading.Event(), threading.Event()

    def hold():
        with claims.exclusive("1" * 32):
            begun.set()
            ended.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    with pytest.raises(ValueError, match="another process has held"), claims.exclusive("1" * 32):
        pass
    assert "waiting up to 0.3 s for another process" in capsys.readouterr().err
    ended.set()
    holder.join()
    started = time.monotonic()
    with claims.exclusive("1" * 32):
        assert time.monotonic() - started < 1
