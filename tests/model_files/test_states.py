"""Unfinished files of a killed process are removed as soon as another run saves a state, starts or ends."""

import errno
import subprocess
import sys
import threading

import pytest
import torch

from pipeline import disk
from pipeline.model_files import states
from pipeline.tracking import lifecycle
from pipeline.training.events import Failure
from tests.conftest import PROJECT

RUN = "1" * 32
WRITE = """
import os, sys, time
from pipeline import disk
with disk.replacing(disk.run_folder(sys.argv[1]) / "state-a.safetensors") as partial:
    partial.write_bytes(bytes(1 << 20))
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writing(place):
    """A function that starts a process which is writing a state of a run."""
    started = []

    def start(run_id=RUN):
        command = [sys.executable, "-c", WRITE, run_id]
        process = subprocess.Popen(command, cwd=PROJECT, env=place.environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "written\n"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def unfinished():
    return disk.unfinished(disk.runs_folder())


def kill(process):
    process.kill()
    process.wait()


def test_saving_a_state_removes_the_unfinished_file_of_a_killed_process(writing):
    process = writing()
    states.save(RUN, {"a": torch.ones(2)}, 1)
    assert len(unfinished()) == 1  # of the living process
    kill(process)
    states.save(RUN, {"a": torch.ones(2)}, 2)
    assert unfinished() == []
    assert [states.step_of(states.slot(RUN, name)) for name in states.SLOTS] in ([1, 2], [2, 1])


@pytest.mark.parametrize("act", [states.remove, disk.remove_if_empty, lambda _: start_and_end()])
def test_starting_or_ending_a_run_removes_the_unfinished_file_too(writing, act):
    kill(writing())
    assert len(unfinished()) == 1
    act(RUN)
    assert unfinished() == []


def start_and_end():
    with lifecycle.start("evaluate", "another run"):
        pass


def test_the_unfinished_file_of_a_dead_process_with_this_number_is_removed(place):
    states.save(RUN, {"a": torch.ones(2)}, 1)
    with disk.replacing(states.slot(RUN, "state-a.safetensors")) as own:
        name = own.name
        disk.remove_unfinished(disk.runs_folder())
        assert own.exists()
        own.write_bytes(b"whole")
    left = disk.run_folder(RUN) / name
    left.write_bytes(b"of a container's process 1, before")
    disk.remove_unfinished(disk.runs_folder())
    assert not left.exists()


def test_processes_that_start_remove_no_file_that_another_one_is_writing(place):
    path = states.slot(RUN, "state-a.safetensors")
    written = threading.Event()

    def clean():
        while not written.is_set():
            disk.remove_unfinished(disk.runs_folder())

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(300):
            with disk.replacing(path) as partial:
                partial.write_text(str(number))
            assert path.read_text() == str(number)
    finally:
        written.set()
        cleaner.join()


def test_the_message_about_a_full_disk_names_unfinished_files_of_others(place, writing):
    writing()
    with pytest.raises(Failure) as raised, lifecycle.start("train", "roomless"):
        raise OSError(errno.ENOSPC, "No space left on device")
    (partial,) = unfinished()
    assert f"where unfinished files take 1.0 MiB: {partial};" in str(raised.value)
