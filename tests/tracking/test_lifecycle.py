"""Everything that a run logs is stored once and is harmless, even if others write to the store or choose the names."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from pipeline import models
from pipeline.model_files import checkpoint, registry
from pipeline.resume import training_state
from pipeline.tracking import journal, lifecycle, processes, recovery, store
from pipeline.tracking.recovery import replay
from pipeline.tracking.sender import Sender
from tests.conftest import Workplace

EPOCHS = 25


def write(folder: Path, uri: str, number: int) -> str:
    """Logs a run as fast as it can. Returns its id."""
    with contextlib.chdir(folder):
        store.use(uri)
        with lifecycle.start("train", f"writer {number}") as run:
            for epoch in range(1, EPOCHS + 1):
                run.metrics({"loss": number + epoch, "accuracy": epoch}, step=epoch)
                run.tags({f"epoch.{epoch}": number})
            run.text("note.txt", str(number))
            return run.id


@pytest.mark.parametrize("num_writers", [pytest.param(each, marks=pytest.mark.slow) for each in (2, 8)])
def test_processes_that_write_to_one_sqlite_store_together_lose_nothing(place, num_writers):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_writers, mp_context=spawn) as pool:
        ids = list(pool.map(write, [place.folder] * num_writers, [place.uri] * num_writers, range(num_writers)))
    for number, run_id in enumerate(ids):
        run = place.client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert {f"epoch.{epoch}" for epoch in range(1, EPOCHS + 1)} <= run.data.tags.keys()
        points = place.client.get_metric_history(run_id, "loss")
        assert [(point.step, point.value) for point in points] == [(e, number + e) for e in range(1, EPOCHS + 1)]
        assert place.artifacts(run_id) == {"note.txt"}


def test_an_entry_sent_twice_is_stored_once(place):
    with lifecycle.start("train", "twice") as run:
        run.metrics({"loss": 1.0}, step=1)
        run.params({"epochs": 3})
        run.dataset("digits", "0" * 32, "data", "training")
        run.text("folder/note.txt", "once")
        run.flush()
        (journal,) = place.folder.glob("state/classifier-pipeline/runs/*/journal-*")
        again = Path(shutil.copytree(journal, place.folder / "again"))
    (again / "sent").unlink()  # as if the process had been killed before it recorded its position
    assert replay(again, Sender(run.id, place.uri)) == 7  # the seals of the run and of its parameters are entries too
    assert replay(again, Sender(run.id, place.uri)) == 0  # another process was faster
    stored = place.client.get_run(run.id)
    assert len(place.client.get_metric_history(run.id, "loss")) == 1
    assert stored.data.params == {"epochs": "3"}
    assert len(stored.inputs.dataset_inputs) == 1
    assert place.artifacts(run.id) == {"folder/note.txt", "params.json"}


def test_one_of_several_senders_sends_a_journal(place):
    sent = []

    def send(folder, entry):
        time.sleep(0.02)
        sent.append(entry["step"])

    folder = place.folder / "journal-1-0"
    folder.mkdir()
    with (folder / "entries.jsonl").open("w") as file:
        file.writelines(json.dumps({"kind": "metrics", "step": step}) + "\n" for step in range(10))
    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(replay, [folder] * 3, [send] * 3)) == [0, 0, 10]
    assert sent == list(range(10))


def test_a_table_keeps_its_numbers_and_starts_no_formula(place):
    table = pd.DataFrame({"name": ["=1+1", None, "-0.5"], "loss": [-0.5, 0.25, None], "@SUM(A1)": ["a\rb", "c", "d"]})
    with lifecycle.start("train", "test") as run:
        run.table("table.csv", table)
        run.table("empty.csv", table.head(0))
        run.table("twice.csv", pd.DataFrame([[1, "=1"]], columns=["=a", "=a"]))
    content = {
        name: Path(place.client.download_artifacts(run.id, f"{name}.csv", str(place.folder))).read_text()
        for name in ("table", "empty", "twice")
    }
    assert content == {
        "table": "name,loss,'@SUM(A1)\n'=1+1,-0.5,a\\rb\n,0.25,c\n-0.5,,d\n",
        "empty": "name,loss,'@SUM(A1)\n",
        "twice": "'=a,'=a\n1,'=1\n",
    }


def test_a_description_holds_no_html(place):
    with lifecycle.start("train", "test") as run:
        run.describe("study <b>", "**Sweep** of <script>alert(1)</script>\n\nsecond \x1b[31mline")
    note = place.client.get_run(run.id).data.tags["mlflow.note.content"]
    assert note == "**Sweep** of &lt;script&gt;alert(1)&lt;/script&gt;\n\nsecond \\x1b&#91;31mline"


def test_an_interrupt_during_logging_loses_nothing_and_sets_the_right_status(place, monkeypatch):
    sync = journal.sync

    def interrupted(path):
        monkeypatch.setattr(journal, "sync", sync)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lifecycle.start("train", "cut short") as run:
        monkeypatch.setattr(journal, "sync", interrupted)
        run.metrics({"loss": 1.0})
    stored = place.client.get_run(run.id)
    assert stored.info.status == "KILLED"
    assert stored.data.metrics == {"loss": 1.0}
    assert not list(place.folder.glob("state/**/journal-*"))


@pytest.mark.parametrize("step", ["train", "main"])
def test_a_run_under_way_cannot_be_resumed(place, step):
    with lifecycle.start(step, "first") as first:
        with (
            pytest.raises(ValueError, match=f"run {first.id} is still running"),
            lifecycle.start(step, "2", reopen=first.id),
        ):
            pass
        assert place.client.get_run(first.id).info.status == "RUNNING"


def test_a_joined_sweep_finishes_although_its_first_process_was_interrupted(place):
    first = contextlib.ExitStack()
    run = first.enter_context(lifecycle.start("sweep", "first"))
    with lifecycle.start("sweep", "second", reopen=run.id):
        with pytest.raises(KeyboardInterrupt), first:
            raise KeyboardInterrupt
        assert place.client.get_run(run.id).info.status == "KILLED"
    stored = place.client.get_run(run.id)
    assert stored.info.status == "FINISHED"
    assert "error" not in stored.data.tags


def test_a_process_joins_a_sweep_under_way_and_does_not_end_it(place):
    with lifecycle.start("sweep", "first") as first:
        with pytest.raises(KeyboardInterrupt), lifecycle.start("sweep", "second", reopen=first.id) as second:
            assert second.id == first.id
            second.metrics({"loss": 1.0})
            second.flush()
            raise KeyboardInterrupt
        assert place.client.get_run(first.id).info.status == "RUNNING"
    stored = place.client.get_run(first.id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "first"
    assert stored.data.metrics == {"loss": 1.0}
    assert "error" not in stored.data.tags


def test_unsent_entries_of_one_machine_do_not_overwrite_newer_ones_of_another(place):
    def epochs(numbers):
        for epoch in numbers:
            run.metrics({"loss": 1 / epoch}, step=epoch)

    with pytest.raises(KeyboardInterrupt), lifecycle.start("train", "here") as run:
        epochs((1, 2))
        run.flush()
        (kept,) = place.folder.glob("state/classifier-pipeline/runs/*/journal-*")
        while not recovery.is_sent(kept):  # the position is written after an entry has arrived
            time.sleep(0.01)
        left = Path(shutil.copytree(kept, place.folder / kept.name))
        raise KeyboardInterrupt
    with lifecycle.start("train", "there", reopen=run.id) as run:
        epochs((3, 4))
    kept.parent.mkdir()
    unsent = [{"kind": "metrics", "at": 1, "values": {"loss": 0.3}, "step": 3, "model_of": ""}]
    unsent += [{"kind": "status", "at": 1, "status": "KILLED"}]
    with (left / "entries.jsonl").open("a") as file:
        file.writelines(json.dumps(entry) + "\n" for entry in unsent)
    (left / "closed").touch()
    left.rename(kept)
    ((folder, header),) = recovery.abandoned_journals()
    assert recovery.complete(folder, header) == 2
    assert not kept.exists()
    assert place.client.get_run(run.id).info.status == "FINISHED"
    assert [point.step for point in place.client.get_metric_history(run.id, "loss")] == [1, 2, 3, 4]


def left_behind(place, run_id, uri, *entries):
    """The folder of a journal with these entries, left by a dead process."""
    folder = place.folder / "state" / "classifier-pipeline" / "runs" / run_id / "journal-1-0"
    folder.mkdir(parents=True)
    (folder / "header.json").write_text(json.dumps({"run_id": run_id, "uri": uri}))
    (folder / "entries.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "closed").touch()
    return folder


GONE = {"step": "train", **processes.as_tags({**processes.this(), "process.pid": "0"})}  # tags of a dead process


def test_a_run_with_only_its_status_unsent_gets_that_status(place):
    run_id = place.client.create_run("0", tags=GONE).info.run_id
    left_behind(place, run_id, place.uri, {"kind": "status", "at": 1, "status": "FINISHED"})
    with lifecycle.start("evaluate", "the next start"):
        pass
    stored = place.client.get_run(run_id)
    assert stored.info.status == "FINISHED"
    assert "error" not in stored.data.tags


def test_refused_entries_of_one_run_do_not_block_another(place, capsys):
    gone = [place.client.create_run("0", tags=GONE).info.run_id for _ in range(2)]
    # A file in the folder's place prevents storing artifacts.
    blocked = Path(place.client.get_run(gone[0]).info.artifact_uri.removeprefix("file://"))
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.touch()
    folder = left_behind(
        place, gone[0], place.uri, {"kind": "file", "at": 1, "file": "files/note.txt", "path": "note.txt"}
    )
    (folder / "files").mkdir()
    (folder / "files/note.txt").write_text("whole")
    with lifecycle.start("evaluate", "the next start"):
        pass
    assert f"run {gone[0]} stays open: tracking store" in capsys.readouterr().err
    assert [place.client.get_run(run_id).info.status for run_id in gone] == ["RUNNING", "FAILED"]
    blocked.unlink()
    with lifecycle.start("evaluate", "the one after"):
        pass
    assert place.client.get_run(gone[0]).info.status == "FAILED"
    assert place.artifacts(gone[0]) == {"note.txt"}


def test_a_journal_of_another_host_is_sent_once_the_host_is_silent(place):
    run_id = place.client.create_run("0", tags=GONE).info.run_id
    folder = left_behind(place, run_id, place.uri)
    (folder / "closed").unlink()
    header = {"run_id": run_id, "uri": place.uri, "process.host": "elsewhere", "process.pid": "1"}
    (folder / "header.json").write_text(json.dumps(header))
    assert not list(recovery.abandoned_journals())
    silent_since = time.time() - 2 * processes.SILENT_SECONDS
    os.utime(folder / "header.json", (silent_since, silent_since))
    assert [found for found, _ in recovery.abandoned_journals()] == [folder]


def test_a_zombie_process_is_dead():
    process = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tags = {**processes.this(), "process.pid": str(process.pid)}
    tags["process.started"] = f"{tags['process.started'].split()[0]} {process.create_time() - psutil.boot_time():.2f}"
    assert not processes.is_dead(tags)
    os.kill(process.pid, signal.SIGKILL)
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert processes.is_dead(tags)
    process.wait()


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_states_are_removed_once_the_run_has_finished(place, is_interrupted):
    with contextlib.suppress(KeyboardInterrupt), lifecycle.start("train", "test") as run:
        run.state({"weights": torch.ones(2)}, step=7)
        run.no_states_once_finished()
        if is_interrupted:
            raise KeyboardInterrupt
    stored = place.client.get_run(run.id)
    assert stored.info.status == ("KILLED" if is_interrupted else "FINISHED")
    assert training_state.has_state(run.id, stored.data.tags) == is_interrupted
    assert bool(place.artifacts(run.id)) == is_interrupted


def test_a_served_model_is_sent_again_if_its_files_were_lost(place):
    described = {"network": {"name": "resnet9", "options": {"width": 4}}, "image_size": 8, "classes": ["a", "b"]}
    weights = models.build("resnet9", num_classes=2, image_size=8, width=4).state_dict()
    checkpoint.save(place.folder / "w.safetensors", weights, {**described, "mean": [0.5] * 3, "std": [0.25] * 3})
    blocked = Path(place.client.get_experiment("0").artifact_location.removeprefix("file://")) / "models"
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.touch()  # this file has the folder's place, so the folder cannot be created
    with lifecycle.start("train", "test") as run:
        run.model(place.folder / "w.safetensors", np.zeros((1, 3, 8, 8), dtype=np.uint8), epoch=1)
        deadline = time.monotonic() + 60
        while not place.client.get_run(run.id).outputs.model_outputs:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        blocked.unlink()
    served = registry.served_model(place.client, place.client.get_run(run.id))
    location = Path(place.client.get_logged_model(served).artifact_location)
    assert [path.name for path in location.rglob("*.safetensors")] == ["classifier.safetensors"]


def test_unsent_entries_are_kept_if_the_database_does_not_know_their_run(place, capsys):
    (place.folder / "elsewhere").mkdir()
    elsewhere = Workplace(place.folder / "elsewhere")
    run_id = elsewhere.client.create_run("0", tags={"step": "train"}).info.run_id
    journal = left_behind(place, run_id, place.uri, {"kind": "metrics", "at": 1, "values": {"loss": 0.5}, "step": 1})
    assert place.run("train", resume="latest") == 2
    assert place.run("sync") == 1
    assert f"run {run_id} is missing or deleted in {place.uri}" in capsys.readouterr().err.splitlines()[-1]
    journal.joinpath("header.json").write_text(json.dumps({"run_id": run_id, "uri": elsewhere.uri}))
    assert place.run("sync") == 0
    assert elsewhere.client.get_run(run_id).data.metrics == {"loss": 0.5}
    assert not journal.exists()


def test_unsent_entries_of_a_deleted_run_wait_until_it_is_restored(place, capsys):
    run_id, other_id = (place.client.create_run("0", tags=GONE).info.run_id for _ in range(2))
    left_behind(place, run_id, place.uri, {"kind": "metrics", "at": 1, "values": {"loss": 0.5}, "step": 1})
    nothing_left = left_behind(place, other_id, place.uri)
    for deleted in (run_id, other_id):
        place.client.delete_run(deleted)
    assert place.run("sync") == 1
    assert f"with `mlflow runs restore --run-id {run_id}`" in capsys.readouterr().err.splitlines()[-1]
    assert not nothing_left.exists()
    place.client.restore_run(run_id)
    assert place.run("sync") == 0
    stored = place.client.get_run(run_id)
    assert (stored.info.status, stored.data.metrics) == ("FAILED", {"loss": 0.5})


def test_a_journal_that_cannot_be_written_is_one_line_and_a_failed_run(place, monkeypatch):
    (place.folder / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(place.folder / "file"))
    with (
        pytest.raises(ValueError, match=r"^the run's journal cannot be written to .*file/classifier-pipeline/runs"),
        lifecycle.start("train", "roomless"),
    ):
        pass
    assert [run.info.status for run in place.runs("train")] == ["FAILED"]


def test_related_runs_are_found_from_another_experiment(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "photos")
    with lifecycle.start("main", "photos") as parent, lifecycle.start("train", "photos", parent) as training:
        pass
    with lifecycle.start("evaluate", "photos") as evaluation:
        evaluation.tags({"train.run_id": training.id})
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert [run.info.run_id for run in store.children(parent.id, "train")] == [training.id]
    wanted = {"train.run_id": training.id}
    assert not store.finished_runs("evaluate", wanted)
    (found,) = store.finished_runs("evaluate", wanted, beside=store.stored_run(training.id))
    assert found.info.run_id == evaluation.id
