"""In a store that others can write to, nobody is misled by runs of other users."""

import json
import shutil

import pytest
from mlflow.entities import RunTag

from tests.conftest import Workplace
from tests.planted.ground import TINY

TRAIN = {**TINY, "epochs": 1, "max_lr": 0.01}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A database that everybody can write to, with a training of this user."""
    place = Workplace(tmp_path_factory.mktemp("shared"))
    for path in (place.folder, place.folder / "mlflow.db"):
        path.chmod(0o777)
    assert place.run("train", **TRAIN, keep_checkpoints="true") == 0
    return place


@pytest.fixture
def mine(shared):
    """The id of the training of this user."""
    return shared.runs("train")[-1].info.run_id


@pytest.fixture
def other(shared):
    """Another user of the same store."""
    place = Workplace.__new__(Workplace)
    place.__dict__ |= shared.__dict__
    place.environment = {**shared.environment, "XDG_STATE_HOME": str(shared.folder / "state of another")}
    return place


def plant(place, mine, status="FINISHED", **params):
    """Copies a run and changes its parameters; the copy claims to be from the same user. Returns its id."""
    theirs = place.client.get_run(mine)
    run_id = place.client.create_run("0", run_name="planted").info.run_id
    place.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in theirs.data.tags.items()])
    (there,) = (place.folder / "mlruns").rglob(f"{mine}/artifacts")
    here = there.parent.parent / run_id / "artifacts"
    shutil.copytree(there, here, dirs_exist_ok=True)
    stored = json.loads((here / "params.json").read_text())
    (here / "params.json").write_text(json.dumps({**stored, **params}))
    place.client.set_terminated(run_id, status)
    return run_id


def printed(place, capsys, status, step, **params):
    """Runs a step, which must end with `status`. Returns its standard error."""
    capsys.readouterr()
    assert place.run(step, **params) == status
    return capsys.readouterr().err


def test_latest_takes_the_users_own_run_and_names_the_owner_of_another(shared, mine, other, capsys):
    planted = plant(shared, mine, data_dir="/home/me/Pictures")
    printed(shared, capsys, 0, "evaluate", run_id="latest")
    assert shared.runs("evaluate")[0].data.tags["train.run_id"] == mine
    refused = printed(other, capsys, 2, "evaluate")
    assert f"the newest belongs to {shared.client.get_run(mine).data.tags['mlflow.user']} on " in refused
    assert f"give run_id={planted} to use it" in refused
    assert f"run {mine} belongs to " in printed(other, capsys, 0, "evaluate", run_id=mine)
    shared.client.delete_run(planted)


@pytest.mark.parametrize("step", ["evaluate", "explain", "export"])
@pytest.mark.parametrize("paths", [{"data_dir": "/home/me/Pictures"}, {"dataset": "folder", "labels": "~/.pgpass"}])
def test_paths_of_images_are_never_taken_from_a_run_of_another_user(shared, mine, capsys, step, paths):
    planted = plant(shared, mine, **paths)
    refused = printed(shared, capsys, 2, step, run_id=planted)
    assert f"error: run {planted} belongs to " in refused
    assert f"{[*paths][-1]}={[*paths.values()][-1]} is not taken from a run of another user" in refused
    shared.client.delete_run(planted)


def test_a_run_whose_parameters_were_changed_counts_as_a_run_of_another_user(shared, mine, capsys):
    (original,) = (shared.folder / "mlruns").rglob(f"{mine}/artifacts/params.json")
    content = original.read_text()
    try:
        original.write_text(json.dumps({**json.loads(content), "data_dir": "/home/me/Pictures"}))
        assert "belongs to somebody who changed its params.json" in printed(shared, capsys, 2, "evaluate", run_id=mine)
    finally:
        original.write_text(content)
    printed(shared, capsys, 0, "evaluate", run_id=mine)


@pytest.mark.parametrize(
    ("step", "params"),
    [
        ("train", {"data_dir": "/home/me/Pictures"}),
        ("train", {"storage": "sqlite:////home/me/theirs.db"}),
        ("train", {"weights": "/home/me/w.safetensors", "freeze": "backbone"}),
        ("main", {"register_as": "ours"}),
    ],
)
def test_resuming_a_run_of_another_user_needs_every_path_and_address_from_this_user(shared, mine, capsys, step, params):
    planted = plant(shared, mine, "FAILED", **params)
    shared.client.set_tag(planted, "step", step)
    assert "resume=latest: no " in printed(shared, capsys, 2, step, resume="latest")
    refused = printed(shared, capsys, 2, step, resume=planted)
    name, value = next(iter(params.items()))
    assert f"{name}={value} is not taken from a run of another user; give it yourself with --{name}" in refused
    shared.client.delete_run(planted)


def test_auto_starts_a_new_run_rather_than_resuming_one_of_another_user(shared, mine, capsys):
    planted = plant(shared, mine, "FAILED")
    printed(shared, capsys, 0, "train", **TRAIN, keep_checkpoints="true", resume="auto")
    assert shared.client.get_run(planted).info.status == "FAILED"
    shared.client.delete_run(planted)


def test_every_run_is_trusted_in_a_store_that_only_this_user_can_write_to(tmp_path, capsys):
    place = Workplace(tmp_path)
    assert place.run("train", **TRAIN) == 0
    place.environment["XDG_STATE_HOME"] = str(tmp_path / "moved")  # as on another machine
    printed(place, capsys, 0, "evaluate")


def test_only_this_user_can_read_the_state_folder(shared):
    folder = shared.folder / "state" / "classifier-pipeline"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "owner.key").stat().st_mode & 0o777 == 0o600
