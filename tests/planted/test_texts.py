"""Planted JSON artifacts and experiment files are refused in one line, and no code in them runs."""

import json

import pytest

from pipeline.steps import train
from tests.planted.ground import DEEP, TRAIN

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
