"""Planted entries of a journal are not sent, and no code in them runs."""

import json
import shutil
import time
from pathlib import Path

import pytest

from pipeline import disk


@pytest.fixture
def journal(ground, trained):
    """A function that creates a journal of a training's run, as if left by another process. Removed after the test."""
    runs = Path(ground.workplace.environment["XDG_STATE_HOME"]) / "classifier-pipeline" / "runs"
    folder = runs / trained / f"journal-{time.time_ns()}-planted"

    def left(*entries, **header):
        (folder / "files").mkdir(parents=True)
        (folder / "header.json").write_text(json.dumps({"run_id": trained, "uri": ground.workplace.uri, **header}))
        lines = (each if isinstance(each, str) else json.dumps({"at": 0, **each}) for each in entries)
        (folder / "entries.jsonl").write_text("".join(f"{line}\n" for line in lines))
        (folder / "closed").touch()
        return folder

    yield left
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def synced(ground, capsys, status=0):
    """Runs `sync`, which must change nothing outside. Returns what it prints."""
    capsys.readouterr()
    with ground.untouched():
        assert ground.workplace.run("sync") == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "file", "file": "../../../../../../../home/diary", "path": "taken"},
        {"kind": "file", "file": "/etc/hostname", "path": "taken"},
        {"kind": "file", "file": ["a"], "path": "taken"},
        {"kind": "model", "weights": "../../x", "example": "/etc/hostname"},
        {"kind": "state", "slot": "../../x", "step": 1},
        {"kind": "__import__"},
        {"kind": ["tags"]},
        {"kind": "tags", "values": 3},
        {"kind": "metrics", "values": {"a": "b"}, "step": 0},
        "[" * 100_000,
        "cos\\nsystem",
    ],
    ids=lambda entry: str(entry)[:40],
)
def test_a_hostile_entry_of_a_journal_is_not_sent(ground, trained, journal, capsys, entry):
    folder = journal(entry)
    assert "not tracked:" in synced(ground, capsys, status=1)
    assert [path.name for path in folder.iterdir() if path.name.startswith("refused")] == ["refused.jsonl"]
    assert "taken" not in ground.workplace.artifacts(trained)


@pytest.mark.parametrize("path", ["../../../../../../home/x", "/tmp/../home/x", "..%2f..%2fx/y", "a/../../../x/y"])
def test_an_artifact_with_a_path_that_leads_elsewhere_is_not_sent(ground, trained, journal, capsys, path):
    folder = journal({"kind": "file", "file": "files/x", "path": path})
    (folder / "files" / "x").write_text("x")
    assert "not tracked:" in synced(ground, capsys, status=1)


def test_a_model_whose_files_are_pickles_is_not_sent(ground, trained, journal, capsys):
    folder = journal({"kind": "model", "weights": "files/w", "example": "files/e"})
    for name in ("w", "e"):
        (folder / "files" / name).write_bytes(ground.pickle)
    assert "not tracked:" in synced(ground, capsys, status=1)


@pytest.mark.parametrize("name", ["sent", "closed", "entries.jsonl", "files/link", "header.json"])
def test_a_journal_with_links_is_left_alone(ground, trained, journal, capsys, name):
    folder = journal({"kind": "file", "file": "files/link", "path": "taken"})
    diary = ground.folder / "home" / "diary"
    if (folder / name).exists():
        shutil.move(folder / name, ground.workplace.folder / "moved")
        diary = ground.workplace.folder / "moved"
    (folder / name).symlink_to(diary)
    assert "is not a journal of this project: skipped" in synced(ground, capsys)
    assert folder.exists()
    assert "taken" not in ground.workplace.artifacts(trained)


def test_a_journal_that_is_a_link_is_left_alone(ground, trained, journal, capsys):
    folder = journal({"kind": "tags", "values": {"a": "b"}})
    folder.rename(ground.folder / "home" / "journal")
    folder.symlink_to(ground.folder / "home" / "journal")
    try:
        assert "is not a journal of this project: skipped" in synced(ground, capsys)
    finally:
        shutil.rmtree(ground.folder / "home" / "journal")


def test_a_journal_with_another_run_id_is_left_alone(ground, journal, capsys):
    journal(run_id="../../../../../../home/empty")
    assert "is not a journal of this project: skipped" in synced(ground, capsys)


@pytest.mark.parametrize("run_id", ["../../x", "", "/etc", "a/b", "..", "a\x00"])
def test_a_run_id_that_leads_elsewhere_has_no_folder(run_id):
    with pytest.raises(ValueError, match="is not a run id"):
        disk.run_folder(run_id)
