"""A workplace with a finished training, whose files tests replace."""

import contextlib
from pathlib import Path

import pytest

from tests.planted.ground import TRAIN, Ground


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def trained(ground):
    """The run of a training that has left all kinds of files."""
    assert ground.workplace.run("train", **TRAIN) == 0
    return ground.workplace.runs("train")[0].info.run_id


@pytest.fixture
def plant():
    """Replaces the content of a file for one test."""
    with contextlib.ExitStack() as undo:

        def put(path, content):
            if path.exists():
                undo.callback(path.write_bytes, path.read_bytes())
            else:
                undo.callback(path.unlink)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        yield put


@pytest.fixture
def interrupted(ground, trained):
    """The training as if it had been killed, without a state; restored after the test."""
    slots = [
        folder / name
        for folder in (local_states(ground, trained), ground.artifacts(trained) / "states")
        for name in ("state-a.safetensors", "state-b.safetensors")
    ]
    kept = {path: path.read_bytes() for path in slots if path.exists()}
    assert kept
    ground.workplace.client.set_terminated(trained, "KILLED")
    yield slots
    for path, content in kept.items():
        path.write_bytes(content)
    ground.workplace.client.set_terminated(trained, "FINISHED")


def local_states(ground, run_id):
    return Path(ground.workplace.environment["XDG_STATE_HOME"]) / "classifier-pipeline" / "runs" / run_id
