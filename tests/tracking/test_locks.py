"""No other user can hold a lock, and no process waits for a lock forever."""

import threading

import pytest
from filelock import FileLock

from pipeline import disk
from pipeline.tracking import locks


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_process_waits_for_a_held_lock_with_a_message_and_then_gives_up(monkeypatch, capsys):
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.1)
    refused = pytest.raises(locks.Busy, match="the other did not end within 0 s: end it")
    with FileLock(locks.file("a")), refused, locks.held("a", "the other", 0.3):
        pass
    assert "waiting up to 0 s for the other" in capsys.readouterr().err


def test_a_lock_is_taken_when_it_becomes_free(monkeypatch, capsys):
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.1)
    other = FileLock(locks.file("a"), thread_local=False)
    other.acquire()
    threading.Timer(0.5, other.release).start()
    with locks.held("a", "the other", 20):
        assert "waiting up to 20 s for the other" in capsys.readouterr().err


def test_only_this_user_can_enter_the_folder_of_locks():
    assert locks.file("a").is_relative_to(disk.state_folder())
    assert disk.state_folder().stat().st_mode & 0o777 == 0o700
    disk.state_folder().chmod(0o755)  # as earlier versions created it
    assert disk.state_folder().stat().st_mode & 0o777 == 0o700
