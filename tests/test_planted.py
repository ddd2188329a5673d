"""Somebody else may have planted any file that a run opens: it is refused in one line, and no code in it runs."""

import contextlib
import json
import pickle
import shutil
import sqlite3
import tempfile
import threading
import time
import urllib.error
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import optuna
import pytest
import torch

from pipeline import disk
from pipeline.data import cache
from pipeline.model_files import checkpoint
from pipeline.steps import train
from tests.conftest import Workplace

TINY = {"experiment": "none", "limit_train": 120, "limit_test": 40, "batch_size": 32, "epochs": 2, "width": 4}
TRAIN = {**TINY, "max_lr": 0.01, "keep_checkpoints": "true"}
DEEP = b"[" * 100_000


class Payload:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


class Ground:
    """A workplace in a larger folder, which shows whether code was executed or a file was written elsewhere."""

    def __init__(self, folder):
        self.folder = folder
        self.marker = folder / "executed"
        (folder / "home").mkdir()
        (folder / "home" / "diary").write_text("mine")
        (folder / "home" / "empty").mkdir()
        place = folder / "a" / "place"
        place.mkdir(parents=True)
        self.workplace = Workplace(place)

    @property
    def pickle(self):
        """A pickle that creates a marker file when it is loaded."""
        return pickle.dumps(Payload(self.marker))

    def elsewhere(self):
        """All files outside of the workplace, with their content."""
        outside = (path for path in self.folder.rglob("*") if not path.is_relative_to(self.workplace.folder))
        return {path: path.read_bytes() if path.is_file() else None for path in outside}

    @contextlib.contextmanager
    def untouched(self):
        before = self.elsewhere()
        yield
        assert not self.marker.exists()
        assert self.elsewhere() == before

    def refused(self, capsys, step, **params):
        """The only line of a step that is refused."""
        capsys.readouterr()
        with self.untouched():
            assert self.workplace.run(step, **params) == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err
        errors = [line for line in err.splitlines() if line.startswith("error:")]
        assert [err.splitlines()[-1]] == errors
        return errors[0]

    def artifacts(self, run_id):
        """The folder of a run's artifacts."""
        return Path(urlparse(self.workplace.client.get_run(run_id).info.artifact_uri).path)


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


# Weights


def weights_file(ground, trained):
    return ground.artifacts(trained) / "weights" / "best.safetensors"


@pytest.mark.parametrize("step", ["evaluate", "explain"])
def test_weights_that_are_a_pickle_are_refused(ground, trained, plant, capsys, step):
    plant(weights_file(ground, trained), ground.pickle)
    assert "not weights of this pipeline" in ground.refused(capsys, step, run_id=trained)


def test_weights_in_a_pickle_of_torch_are_refused(ground, trained, plant, capsys, tmp_path):
    torch.save({"weight": Payload(ground.marker)}, tmp_path / "w.pt")
    plant(weights_file(ground, trained), (tmp_path / "w.pt").read_bytes())
    assert "not weights of this pipeline" in ground.refused(capsys, "evaluate", run_id=trained)


def vit_description(**sizes):
    """The description of a ViT with these options."""
    return {"network": {"name": "vit", "options": {"patch_size": 4, "dim": 24, "depth": 1, "heads": 2, **sizes}}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"network": {"name": "resnet18", "options": {"width": 10**9}}}, "width should be less than or equal to 1024"),
        ({"network": {"name": "resnet18", "options": {"width": 1024}}}, "other tensors"),  # 2.9 GB
        ({"image_size": 10**9}, "image_size should be less than or equal to 1024"),
        (vit_description(depth=100, dim=8192), "other tensors"),  # 320 GB
        (vit_description(depth=10**9), "depth should be less than"),
        ({"network": {"name": "vgg19", "options": {}}}, "other tensors"),  # 0.6 GB
        ({"network": {"name": "regnet_y_128gf", "options": {}}}, "other tensors"),  # 2.6 GB
        ({"network": {"name": "vit_h_14", "options": {}}}, "image_size=32: vit_h_14 cannot be built"),
        ({"network": {"name": "resnet50; rm", "options": {}}}, "did you mean resnet50?"),
        ({"classes": [str(number) for number in range(10**6)]}, "other tensors"),
        ({"classes": "abc"}, "classes"),
        ({"classes": []}, "classes"),
        ({"network": {"name": "../../x", "options": {}}}, "network.name"),
        ({"network": {"name": "resnet18", "options": {"width": "wide"}}}, "network.options.width"),
        ({"network": {"name": "resnet18", "options": {"depht": 3}}}, "depht"),
        ({"network": None}, "network"),
        ({"image_size": None}, "image_size"),
        ({"mean": [0.5]}, "mean"),
        ({"std": [0, 0, 0]}, "std"),
        ({"std": [float("nan")] * 3}, "std"),
    ],
)
def test_weights_whose_description_is_impossible_are_refused_before_memory_is_taken(
    ground, trained, plant, capsys, tmp_path, change, reason
):
    path = weights_file(ground, trained)
    state, described = checkpoint.load(path)
    checkpoint.save(tmp_path / "w", state, {**described, **change})
    plant(path, (tmp_path / "w").read_bytes())
    with limited_tensors(10**8):
        assert reason in ground.refused(capsys, "evaluate", run_id=trained)


@contextlib.contextmanager
def limited_tensors(num_bytes):
    """Inside this context, no larger tensor can be created: a file must be refused before it takes memory."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.device.type != "meta":
                assert made.nbytes < num_bytes
            return made

    with Watch():
        yield


@pytest.mark.parametrize("missing", ["network", "image_size", "classes", "mean", "std"])
def test_weights_whose_description_lacks_a_field_are_refused(ground, trained, plant, capsys, tmp_path, missing):
    path = weights_file(ground, trained)
    state, described = checkpoint.load(path)
    del described[missing]
    checkpoint.save(tmp_path / "w", state, described)
    plant(path, (tmp_path / "w").read_bytes())
    assert f"{missing} Field required" in ground.refused(capsys, "evaluate", run_id=trained)


def test_weights_of_other_classes_or_of_another_number_type_are_refused(ground, trained, plant, capsys, tmp_path):
    path = weights_file(ground, trained)
    state, described = checkpoint.load(path)
    checkpoint.save(tmp_path / "w", {name: tensor.double() for name, tensor in state.items()}, described)
    plant(path, (tmp_path / "w").read_bytes())
    assert "other tensors" in ground.refused(capsys, "evaluate", run_id=trained)
    checkpoint.save(tmp_path / "w", state, {**described, "classes": list("zyxwvutsrq")})
    plant(path, (tmp_path / "w").read_bytes())
    assert "the classes or image size of its weights" in ground.refused(capsys, "evaluate", run_id=trained)


# States of an interrupted training


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


def tree_of(slots):
    return next(checkpoint.load_tree(path)[0] for path in slots if path.exists())


def test_states_that_are_pickles_are_refused(ground, trained, interrupted, plant, capsys):
    for path in interrupted:
        plant(path, ground.pickle)
    assert "has saved no state" in ground.refused(capsys, "train", resume=trained)


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: {**tree, "schedule": {**tree["schedule"], "step": 1}},
        lambda tree: {**tree, "schedule": 3},
        lambda tree: {**tree, "model": "../../x"},
        lambda tree: {**tree, "optimizer": {"state": {}, "param_groups": []}},
        lambda tree: {**tree, "history": {"epochs": [{"epoch": 1}], "steps": {}}},
        lambda tree: {**tree, "history": None},
        lambda tree: {**tree, "best": "../../x", "last": "../../x"},
        lambda tree: {},
    ],
)
def test_states_of_something_else_are_refused(ground, trained, interrupted, plant, capsys, tmp_path, change):
    checkpoint.save_tree(tmp_path / "state", change(tree_of(interrupted)), {"step": 10**6})
    for path in interrupted:
        plant(path, (tmp_path / "state").read_bytes())
    assert "the kept state is not of this training" in ground.refused(capsys, "train", resume=trained)


# Cached images


def cache_entry(ground):
    """The folder of the cached images."""
    (found,) = (path for path in (ground.workplace.folder / "cache" / "classifier-pipeline").iterdir() if path.is_dir())
    return found


def object_array_file(ground, folder):
    """An .npy file of objects, which NumPy pickles."""

    np.save(folder / "objects.npy", np.array([Payload(ground.marker)] * 3, dtype=object), allow_pickle=True)
    return (folder / "objects.npy").read_bytes()


def npz_file(folder):
    """An archive of arrays, where a single array is expected."""
    np.savez(folder / "some.npz", images=np.zeros(3))
    return (folder / "some.npz").read_bytes()


def npy_header(shape, descr="|u1"):
    """The header of an .npy file without the array that it promises."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize("file", ["images.npy", "moments.npy", "set.json"])
def test_hostile_cached_images_are_not_used_but_decoded_again(ground, trained, capsys, tmp_path, file):
    path = cache_entry(ground) / file
    whole = path.read_bytes()
    hostile = [ground.pickle, object_array_file(ground, tmp_path), npz_file(tmp_path), DEEP, b"", b"{}", b"[]"]
    hostile += [
        npy_header((10**12, 3, 32, 32)),
        npy_header((1797, 2, 3), "<i8"),
        npy_header("(" * 3000),
        npy_header((-1,), "|O"),
    ]
    fields = json.loads((cache_entry(ground) / "set.json").read_text())
    for wrong in (
        {"labels": [10**9] * 1797},
        {"labels": [-1] * 1797},
        {"labels": [10**30] * 1797},
        {"parts": [7] * 1797},
        {"names": ["../../x"]},
        {"classes": 3},
        {"digest": None},
        {"corrupt": [1]},
        {"labels": fields["labels"][::-1]},
        {"classes": fields["classes"][::-1]},
        {"names": fields["names"][::-1]},
    ):
        hostile.append(json.dumps({**fields, **wrong}).encode())
    for content in hostile if file != "set.json" else [*hostile, b"\xff"]:
        path.write_bytes(content)
        with ground.untouched(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", ground.workplace.environment["XDG_CACHE_HOME"])
            assert cache.find(cache_entry(ground).name) is None
    capsys.readouterr()
    with ground.untouched():
        assert ground.workplace.run("evaluate", run_id=trained) == 0
    assert "decoding again" in capsys.readouterr().err
    assert path.read_bytes() == whole


@pytest.mark.parametrize("text", ["../../x", "/etc", "..", "", "a/b", "a\x00b", "é", "x" * 5000])
def test_a_cached_key_that_leads_elsewhere_is_ignored(ground, tmp_path, monkeypatch, text):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "deep" / "cache"))
    cache.folder().mkdir(parents=True)
    fields = {"labels": [0], "parts": [0], "names": ["a"], "classes": ["x"], "digest": "d", "corrupt": []}
    with cache.Writer("key", 8) as writer:
        writer.append(np.zeros((1, 3, 8, 8), dtype=np.uint8))
        writer.commit(fields)
    shutil.copytree(cache.folder() / "key", tmp_path / "deep" / "x")
    cache.remember("manifest", "key")
    assert cache.recall("manifest") is not None
    (cache.folder() / "manifest.key").write_text(text)
    assert cache.recall("manifest") is None


# JSON artifacts

NO_PARAMS = [
    DEEP,
    b"[]",
    b"",
    b"\xff",
    b'{"epochs": "../../x"}',
    b'{"__class__": "os.system"}',
    b'{"seed": 1' + b"0" * 5000 + b"}",
]


@pytest.mark.parametrize("content", [None, *NO_PARAMS], ids=lambda content: repr(content)[:20])
def test_a_hostile_params_json_is_refused(ground, trained, plant, capsys, content):
    plant(ground.artifacts(trained) / "params.json", ground.pickle if content is None else content)
    assert "params.json" in ground.refused(capsys, "evaluate", run_id=trained)


@pytest.mark.parametrize("content", [None, *NO_PARAMS], ids=lambda content: repr(content)[:20])
def test_a_hostile_params_json_of_an_interrupted_training_is_refused(
    ground, trained, interrupted, plant, capsys, content
):
    plant(ground.artifacts(trained) / "params.json", ground.pickle if content is None else content)
    line = ground.refused(capsys, "train", resume=trained)
    assert "params.json" in line or "resume=" in line


def test_a_params_json_that_leads_to_other_images_is_refused(ground, trained, plant, capsys):
    path = ground.artifacts(trained) / "params.json"
    plant(path, json.dumps({**json.loads(path.read_text()), "dataset": "folder", "data_dir": "../../x"}).encode())
    assert "../../x" in ground.refused(capsys, "evaluate", run_id=trained)


def create_run(ground, step, status, folder, **files):
    """The id of a new run of `step`, as if from somebody else, with these artifacts."""
    client = ground.workplace.client
    run = client.create_run("0", tags={"step": step, "dataset": "digits", "model": "resnet18"})
    for name, content in files.items():
        (folder / f"{name}.json").write_bytes(content)
        client.log_artifact(run.info.run_id, str(folder / f"{name}.json"))
    client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def test_a_range_test_with_a_hostile_recipe_json_is_not_used(ground, capsys, tmp_path, monkeypatch):
    run_id = create_run(ground, "lr_range", "FINISHED", tmp_path, recipe=ground.pickle)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ground.workplace.uri)
    capsys.readouterr()
    with ground.untouched():
        train._say_what_differs({"dataset": "digits", "model": "resnet18"})
    expected = f"{run_id} is not used, as it is of another recipe, rule or ladder: run {run_id}: recipe.json cannot"
    assert expected in capsys.readouterr().err


RESULT = {"run_id": "0" * 32, "summary": "s", "metrics": {}, "handed": {}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        DEEP,
        b"{}",
        b"[1]",
        json.dumps([{**RESULT, "metrics": {"a": "../../x"}}]).encode(),
        json.dumps([{**RESULT, "handed": {"run_id": "../../x"}}] * 2).encode(),
        json.dumps([{**RESULT, "handed": {"run_id": "0" * 32, "checkpoint": "../../x"}}] * 2).encode(),
    ],
    ids=lambda content: repr(content)[:40],
)
def test_a_hostile_finished_steps_json_is_refused(ground, capsys, tmp_path, content):
    params = json.dumps({**TRAIN, "steps": "lr_range,train,evaluate"}).encode()
    files = {"params": params, "finished_steps": ground.pickle if content is None else content}
    run_id = create_run(ground, "main", "FAILED", tmp_path, **files)
    line = ground.refused(capsys, "main", resume=run_id)
    assert "finished_steps.json is of another version" in line or "evaluate cannot take what it was handed" in line


# Experiment files

LAUGHS = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(8 * [f'*{before}'])}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "epochs: !!python/object/apply:os.system ['touch {marker}']\n",
        "epochs: !!python/object/apply:pathlib.Path.touch [{marker}]\n",
        "!!python/object/new:subprocess.check_output [[touch, {marker}]]\n",
        "? !!python/name:os.system\n: 1\n",
        "epochs: !!int x\n",
        "epochs: !!int ''\n",
        "epochs: !!bool maybe\n",
        "epochs: !!timestamp x\n",
        "epochs: 2020-13-45\n",
        f"epochs: {'1' * 5000}\n",
        "[" * 10_000,
        "? [a]\n: b\n",
        "../../x: 1\n",
        LAUGHS,
        LAUGHS.replace("j: &j", "epochs: &j"),
        "data_dir: ../../x\ndataset: folder\n",
        'epochs: "\\e[2J\\nerror: all is well"\n',
        "device: ../../x\n",
        "model: ../../x\n",
    ],
    ids=lambda text: text[:40],
)
def test_a_hostile_experiment_file_is_refused(ground, capsys, tmp_path, text):
    (tmp_path / "e.yaml").write_text(text.replace("{marker}", str(ground.marker)))
    line = ground.refused(capsys, "train", experiment=tmp_path / "e.yaml")
    assert "\x1b" not in line
    assert len(line) < 7000


# Studies


@pytest.fixture
def study(ground):
    """A study of this project with one complete trial, in its own database."""
    path = ground.workplace.folder / "planted.db"
    made = optuna.create_study(study_name="planted", storage=f"sqlite:///{path}", direction="maximize")
    made.set_user_attr("declared", {"model": "resnet18", "epochs": 1})
    made.set_user_attr("machine", {"device": "cpu", "data_dir": "data"})
    made.add_trial(
        optuna.trial.create_trial(
            params={"max_lr": 0.01},
            distributions={"max_lr": optuna.distributions.FloatDistribution(1e-3, 1)},
            value=0.5,
        )
    )
    yield made
    path.unlink()


def from_planted_study(ground):
    """The parameters of a training with the best values of the study."""
    return {"experiment": "none", "from_study": "planted", "storage": f"sqlite:///{ground.workplace.folder}/planted.db"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("declared", "../../x"),
        ("declared", ["epochs"]),
        ("declared", {"__reduce__": "os.system"}),
        ("declared", {"resume": "latest"}),
        ("declared", {"epochs": "../../x"}),
        ("declared", {"model": {"!!python/object/apply:os.system": "true"}}),
        ("machine", 3),
        ("machine", {"device": "../../x"}),
        ("narrowed", {"max_lr": ["a", "b"]}),
        ("narrowed", {"../../x": [1, 2]}),
        ("mlflow.run_id", "../../x"),
        ("mlflow.run_id", 7),
    ],
)
def test_hostile_notes_of_a_study_are_refused(ground, study, capsys, name, value):
    study.set_user_attr(name, value)
    ground.refused(capsys, "train", **from_planted_study(ground))


SWEEP = {**TINY, "study_name": "planted", "space": '{"max_lr": {"low": 0.001, "high": 1}}', "num_trials": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [("process", ["../../x"]), ("process", {"process.pid": {}}), ("mlflow.run_id", "../../x"), ("goes_on_with", 3)],
)
def test_hostile_notes_of_a_trial_are_refused(ground, study, capsys, name, value):
    trial = study.ask()
    trial.set_user_attr(name, value)
    assert "study planted is not from this project" in ground.refused(capsys, "train", **from_planted_study(ground))
    storage = {"storage": from_planted_study(ground)["storage"]}
    assert "study planted is not from this project" in ground.refused(capsys, "sweep", **SWEEP, **storage)


@pytest.mark.parametrize("text", ["cos\nsystem\n(S'touch {marker}'\ntR.", "[" * 100_000, "null"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("study_user_attributes", "value_json"),
        ("trial_params", "distribution_json"),
        ("trial_params", "param_value"),
        ("trial_values", "value"),
        ("trial_values", "value_type"),
        ("trials", "state"),
        ("studies", "study_name"),
    ],
)
def test_hostile_rows_of_a_study_are_refused(ground, study, capsys, table, column, text):
    database = sqlite3.connect(ground.workplace.folder / "planted.db")
    with contextlib.closing(database), database:
        database.execute(f"update {table} set {column} = ?", (text.replace("{marker}", str(ground.marker)),))
    ground.refused(capsys, "train", **from_planted_study(ground))


def test_a_complete_trial_without_a_value_is_refused(ground, study, capsys):
    database = sqlite3.connect(ground.workplace.folder / "planted.db")
    with contextlib.closing(database), database:
        database.execute("delete from trial_values")
    assert "does not have one value per objective" in ground.refused(capsys, "train", **from_planted_study(ground))


# Journals


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


# A tracking server that lies


class Liar(BaseHTTPRequestHandler):
    """A minimal MLflow server: it has one run, lists its artifacts as `listed`, and sends `content` for each."""

    run_id, listed, content, artifact_uri = "0" * 32, [], b"{}", "mlflow-artifacts:/0"

    def do_GET(self):
        self.answer()

    do_POST = do_GET

    def answer(self):
        path = self.path.partition("?")[0]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        info = {"run_id": self.run_id, "run_uuid": self.run_id, "experiment_id": "0", "status": "FINISHED"}
        info |= {"artifact_uri": self.artifact_uri, "start_time": 0, "lifecycle_stage": "active"}
        run = {"info": info, "data": {"tags": [{"key": "step", "value": "train"}]}, "inputs": {}}
        experiment = {"experiment_id": "0", "name": "Default", "artifact_location": "mlflow-artifacts:/0"}
        if path.endswith("mlflow-artifacts/artifacts"):
            body = json.dumps({"files": self.listed if self.listed else []}).encode()
        elif "/mlflow-artifacts/artifacts/" in path:
            body = self.content
        else:
            body = json.dumps(
                {"run": run, "runs": [run], "experiment": {**experiment, "lifecycle_stage": "active"}}
            ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def liar(ground, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(ground.workplace.folder))  # downloads go there
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneLiar", (Liar,), {}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(ground.workplace, "uri", f"http://127.0.0.1:{server.server_port}")
    yield server.RequestHandlerClass
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "name",
    ["../../../home/x", "{ground}/home/x", "a/../../../../home/x", "..%2f..%2f..%2fhome%2fx", "..\\x", "%252e%252e/x"],
)
@pytest.mark.parametrize("is_dir", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_server_that_lists_paths_that_lead_elsewhere_is_refused(ground, liar, capsys, name, is_dir):
    liar.listed = [{"path": name.format(ground=ground.folder), "is_dir": is_dir, "file_size": 2}]
    refusal = ground.refused(capsys, "evaluate", run_id=liar.run_id)
    assert "params.json" in refusal or "its artifacts cannot be listed (Invalid path)" in refusal


def test_a_server_whose_files_are_pickles_is_refused(ground, liar, capsys):
    liar.content = ground.pickle
    assert "params.json cannot be read" in ground.refused(capsys, "evaluate", run_id=liar.run_id)


@pytest.mark.parametrize(
    "uri", ["file:///etc", "/etc", "../../x", "mlflow-artifacts:/../../x", "nowhere://x", "\x00", ""]
)
def test_a_server_that_names_another_artifact_folder_is_refused(ground, liar, capsys, uri):
    liar.artifact_uri = uri
    ground.refused(capsys, "evaluate", run_id=liar.run_id)


def test_a_server_whose_run_has_a_path_for_its_id_is_refused(ground, liar, capsys):
    liar.run_id = "../../../../../home/empty"
    ground.refused(capsys, "train", **TRAIN)


# Named sets


@pytest.mark.parametrize(
    ("dataset", "files"),
    [
        ("cifar10", ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta", "cifar-10-python.tar.gz"]),
        ("cifar100", ["cifar-100-python/train", "cifar-100-python/meta", "cifar-100-python.tar.gz"]),
        ("mnist", ["MNIST/processed/training.pt", "MNIST/processed/test.pt"]),
        (
            "fashion_mnist",
            [
                f"FashionMNIST/raw/{part}-ubyte"
                for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
            ],
        ),
        ("svhn", ["train_32x32.mat", "test_32x32.mat"]),
    ],
)
def test_a_named_set_whose_files_are_pickles_is_refused(ground, capsys, monkeypatch, dataset, files):
    def closed(*_, **__):
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", closed)
    for file in files:
        path = ground.workplace.folder / "sets" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ground.pickle)
    line = ground.refused(capsys, "train", **TINY, dataset=dataset, data_dir="sets")
    assert "is not on this disk and cannot be fetched" in line
