"""Unsent entries are never lost silently: not by damage, not by a refusal, and not if somebody removes the folder."""

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from pipeline.tracking import entries, journal, lifecycle, outbox, processes, recovery
from pipeline.training.events import Failure
from tests.resume.test_resume import TRAIN, state_folder, wait_for_epochs

NUM_ENTRIES, NUM_SENT = 8, 3
GONE = {"step": "train", **processes.as_tags({**processes.this(), "process.pid": "0"})}  # tags of a dead process


@pytest.fixture
def place(place, monkeypatch):
    monkeypatch.setattr(journal, "left_behind", [])
    return place


def left_behind(run_id, uri, num_sent=0, is_closed=True):
    """The folder of a journal of NUM_ENTRIES points that its process has left, with the first `num_sent` sent."""
    sent = []

    def send(folder, entry):
        if len(sent) == num_sent:
            raise outbox.Transient("the store is away")
        sent.append(entry)

    kept = journal.Journal(run_id, uri, send, signs=False)
    for step in range(NUM_ENTRIES):
        kept.append("metrics", values={"loss": 0.5 + step}, step=step, model_of="")
    while len(sent) < num_sent or not (num_sent == 0 or (kept.folder / "sent").exists()):
        time.sleep(0.01)
    kept.close()
    journal.left_behind.clear()
    if not is_closed:
        (kept.folder / "closed").unlink()
    return kept.folder


def flip_bits(path, position, bits):
    content = bytearray(path.read_bytes())
    content[position] ^= bits
    path.write_bytes(content)


def replayed(folder):
    """(steps that are sent from a journal, whether the journal is then removed). Each point must be as logged."""
    steps = []

    def send(_, entry):
        assert entry["values"] == {"loss": 0.5 + entry["step"]}
        steps.append(entry["step"])

    recovery.replay(folder, send)
    return set(steps), not folder.exists()


def random_flips(number, content, seed):
    """Random pairs (position in `content`, bits to flip there)."""
    generator = random.Random(seed)
    return [(generator.randrange(len(content)), generator.randrange(1, 256)) for _ in range(number)]


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "killed"])
def test_a_flipped_byte_loses_at_most_its_entry_and_is_reported(place, is_closed):
    original = left_behind("1" * 32, place.uri, NUM_SENT, is_closed)
    content = (original / "entries.jsonl").read_bytes()
    for where, bits in random_flips(300, content, seed=0):
        folder = Path(shutil.copytree(original, place.folder / f"journal-{where}-{bits}", dirs_exist_ok=True))
        flip_bits(folder / "entries.jsonl", where, bits)
        steps, is_gone = replayed(folder)
        lost = set(range(NUM_SENT, NUM_ENTRIES)) - steps
        line = content[:where].count(b"\n")
        assert lost <= ({line, line + 1} if content[where : where + 1] == b"\n" else {line})
        assert is_gone == (not lost), (where, bits)
        assert is_gone or outbox.refusals(folder)


def test_a_flipped_byte_of_the_position_loses_nothing(place):
    original = left_behind("1" * 32, place.uri, NUM_SENT)
    content = (original / "sent").read_bytes()
    for where, bits in random_flips(150, content, seed=1):
        folder = Path(shutil.copytree(original, place.folder / f"journal-{where}-{bits}", dirs_exist_ok=True))
        flip_bits(folder / "sent", where, bits)
        steps, is_gone = replayed(folder)
        assert set(range(NUM_SENT, NUM_ENTRIES)) <= steps
        assert is_gone


@pytest.mark.parametrize("position", ["3 240", "3 24000", "0 240", "8 999999", "3", "a b", "", "-1 -1"])
def test_a_wrong_position_of_an_earlier_version_loses_nothing(place, position):
    folder = place.folder / "journal-1-0"
    folder.mkdir()
    lines = [json.dumps({"kind": "metrics", "values": {"loss": 0.5 + step}, "step": step}) for step in range(8)]
    (folder / "entries.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "sent").write_text(position)
    assert replayed(folder) == (set(range(8)), True)


def test_a_journal_of_an_earlier_version_continues_at_its_position(place):
    folder = place.folder / "journal-1-0"
    folder.mkdir()
    lines = [json.dumps({"kind": "metrics", "values": {"loss": 0.5 + step}, "step": step}) for step in range(8)]
    (folder / "entries.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (folder / "sent").write_text(f"3 {sum(len(line) + 1 for line in lines[:3])}")
    (folder / "closed").touch()
    assert replayed(folder) == (set(range(3, 8)), True)


@pytest.mark.parametrize("kept", [None, 0, 2, 7])
def test_entries_missing_at_the_end_are_reported(place, kept):
    folder = left_behind("1" * 32, place.uri)
    lines = (folder / "entries.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "entries.jsonl").write_bytes(b"".join(lines[:kept]))
    if kept is None:
        (folder / "entries.jsonl").unlink()
        kept = 0
    assert replayed(folder) == (set(range(kept)), False)
    assert outbox.refusals(folder) == [f"{8 - kept} entries of the journal are lost"]


def test_the_unfinished_line_of_a_killed_process_is_no_damage(place):
    original = left_behind("1" * 32, place.uri, is_closed=False)
    content = (original / "entries.jsonl").read_bytes()
    begin = content.rindex(b"\n", 0, -1) + 1
    for length in range(begin, len(content)):
        folder = Path(shutil.copytree(original, place.folder / f"journal-{length}"))
        (folder / "entries.jsonl").write_bytes(content[:length])
        is_whole = length == len(content) - 1
        assert replayed(folder) == (set(range(NUM_ENTRIES if is_whole else NUM_ENTRIES - 1)), True)


@pytest.mark.parametrize("name", ["entries.jsonl", "header.json"])
def test_sync_sends_the_intact_entries_of_a_damaged_journal_and_keeps_it(place, capsys, name):
    run_id = place.client.create_run("0", tags=GONE).info.run_id
    folder = left_behind(run_id, place.uri)
    flip_bits(folder / name, (folder / name).read_bytes().index(b"0.5" if name == "entries.jsonl" else b"mlflow"), 1)
    for _ in range(2):
        assert place.run("sync") == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "damaged" in error
        assert str(folder) in error
    steps = [point.step for point in place.client.get_metric_history(run_id, "loss")]
    assert steps == ([*range(1, NUM_ENTRIES)] if name == "entries.jsonl" else [])
    shutil.rmtree(folder)
    assert place.run("sync") == 0


def test_a_refused_entry_is_kept_until_the_store_accepts_it(place, capsys):
    with pytest.raises(Failure, match="not tracked: metrics of run"), lifecycle.start("train", "refused") as run:
        run.metrics({"loss": 1.0}, step=1)
        assert run.flush()
        place.client.delete_run(run.id)
        run.metrics({"loss": 0.5}, step=2)
        run.metrics({"loss": 0.2}, step=3)
        run.flush()
    (folder,) = place.folder.glob("state/**/journal-*")
    assert len(outbox.refusals(folder)) >= 2
    assert place.run("sync") == 1
    assert f"run {run.id}" in capsys.readouterr().err.splitlines()[-1]
    place.client.restore_run(run.id)
    assert place.run("sync") == 0
    assert [point.step for point in place.client.get_metric_history(run.id, "loss")] == [1, 2, 3]
    assert not folder.exists()


def test_every_sync_reports_an_entry_that_the_store_never_accepts(place, capsys):
    run_id = place.client.create_run("0", tags=GONE).info.run_id
    folder = left_behind(run_id, place.uri)
    with (folder / "entries.jsonl").open("a") as file:
        file.write(entries.sealed({"kind": "metrics", "values": {"a$b": 1.0}, "step": 0, "at": 1, "number": 8}) + "\n")
    for _ in range(2):
        assert place.run("sync") == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"run {run_id}: refused entries are kept in {folder} (1, the first: " in error
    with lifecycle.start("evaluate", "another"):
        pass
    assert "not tracked" not in capsys.readouterr().err
    (listed,) = map(json.loads, (folder / "refused.jsonl").read_text().splitlines())
    assert json.loads(listed["entry"])["values"] == {"a$b": 1.0}
    assert len(place.client.get_metric_history(run_id, "loss")) == NUM_ENTRIES


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "classifier-pipeline/runs/{run_id}"], ids=["all", "of the run"])
def test_a_training_whose_state_folder_is_removed_ends_with_one_line(place, part):
    process = place.start("train", **{**TRAIN, "epochs": 1000})
    run_id = wait_for_epochs(place, process, 2)
    shutil.rmtree(place.folder / "state" / part.format(run_id=run_id), ignore_errors=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    (message,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "the run's files on this disk are missing" in message
    run = place.client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert "removed during the run" in run.data.tags["error"]
    steps = [point.step for point in place.client.get_metric_history(run_id, "lr")]
    assert steps == list(range(1, len(steps) + 1))
    assert {"weights/best.safetensors", "weights/last.safetensors", "steps.csv"} <= place.artifacts(run_id)
    assert not list(state_folder(place, run_id).glob("journal-*"))


def test_nothing_is_lost_if_the_state_folder_is_removed_at_the_end(place):
    with lifecycle.start("train", "test") as run:
        run.metrics({"loss": 1.0}, step=1)
        assert run.flush()
        with pytest.raises(FileNotFoundError, match="removed during the run"):
            shutil.rmtree(place.folder / "state")
            run.metrics({"loss": 0.5}, step=2)
        shutil.rmtree(place.folder / "state")
        run.text("notes.txt", "whole")
    assert [point.step for point in place.client.get_metric_history(run.id, "loss")] == [1, 2]
    assert place.artifacts(run.id) == {"notes.txt"}
    assert place.client.get_run(run.id).info.status == "FINISHED"
