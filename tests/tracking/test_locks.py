"""Locks lie where nobody else can hold them, and nobody waits for ever."""

import threading

import pytest
from filelock import FileLock

from pipeline import disk
from pipeline.tracking import locks


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_lock_that_is_held_is_waited_for_with_a_word_and_not_for_ever(monkeypatch, capsys):
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.1)
    refused = pytest.raises(locks.Busy, match="the other did not end within 0 s: end it")
    with FileLock(locks.file("a")), refused, locks.held("a", "the other", 0.3):
        pass
    assert "waiting up to 0 s for the other" in capsys.readouterr().err


def test_a_lock_that_becomes_free_is_taken(monkeypatch, capsys):
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.1)
    other = FileLock(locks.file("a"), thread_local=False)
    other.acquire()
    threading.Timer(0.5, other.release).start()
    with locks.held("a", "the other", 20):
        assert "waiting up to 20 s for the other" in capsys.readouterr().err


def test_locks_lie_in_a_folder_of_this_user_s_alone():
    assert locks.file("a").is_relative_to(disk.state_folder())
    assert disk.state_folder().stat().st_mode & 0o777 == 0o700
    disk.state_folder().chmod(0o755)  # as earlier versions have made it
    assert disk.state_folder().stat().st_mode & 0o777 == 0o700
