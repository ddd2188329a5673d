"""Exports and registers trainings as a user does, and reads them back with other programs."""

import html
import json
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.steps import export
from tests.conftest import Workplace

TINY = {"experiment": "none", "model": "ultimus", "limit_test": 60, "batch_size": 32, "epochs": 1, "max_lr": 0.01}
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with two finished trainings, tested on the same images. The older one had more train images."""
    place = Workplace(tmp_path_factory.mktemp("workplace"))
    assert place.run("train", **TINY, limit_train=300) == 0
    assert place.run("train", **TINY, limit_train=150, valid_fraction=0) == 0
    return place


@pytest.fixture
def trainings(place):
    """The ids of the trainings, the older one first."""
    newer, older = place.runs("train")
    return older.info.run_id, newer.info.run_id


def load_served(place, uri):
    """The model at `uri`, as MLflow serves it."""
    mlflow.set_tracking_uri(place.uri)
    try:
        return mlflow.pyfunc.load_model(uri)
    finally:
        mlflow.set_tracking_uri(None)


def served_by_run(place, run_id):
    """The model of a training, as MLflow serves it."""
    (output,) = place.client.get_run(run_id).outputs.model_outputs
    return load_served(place, f"models:/{output.model_id}")


def test_an_onnx_file_answers_as_the_served_model_does(place, trainings, tmp_path, capsys):
    older, _ = trainings
    assert place.run("export", run_id=older) == 0
    (run,) = place.runs("export")
    file = place.client.download_artifacts(run.info.run_id, "model.onnx", str(tmp_path))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"images": IMAGES})
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    answer = served_by_run(place, older).predict(IMAGES)
    np.testing.assert_allclose(probabilities, answer[[f"p/{name}" for name in classes]], atol=1e-5)
    assert session.get_modelmeta().custom_metadata_map["run_id"] == older
    numbers, tags = run.data.metrics, run.data.tags
    assert 0 <= numbers["export/largest_difference"] < 1e-5
    assert numbers["export/bytes"] == Path(file).stat().st_size
    assert tags["train.run_id"] == older
    said = capsys.readouterr().err
    for text in (tags["mlflow.note.content"], said):
        assert "model.onnx, opset 20" in text and "on 30 validation images they are within" in text
    before, _, folder = said.splitlines()[-1].rpartition(", in ")
    assert before == f"export: model.onnx is in run {run.info.run_id}" and (Path(folder) / "model.onnx").is_file()


def test_torch_export_of_the_newest_training_without_validation_is_checked_on_test_images(place, trainings, tmp_path):
    assert place.run("export", format="torch_export") == 0
    run = place.runs("export")[0]
    assert run.data.tags["train.run_id"] == trainings[1]
    assert "on 60 test images" in run.data.tags["mlflow.note.content"]
    file = place.client.download_artifacts(run.info.run_id, "model.pt2", str(tmp_path))
    found = torch.export.load(file).module()(torch.from_numpy(IMAGES)).detach()
    np.testing.assert_allclose(found, served_by_run(place, trainings[1]).predict(IMAGES).iloc[:, 1:], atol=1e-5)


def test_an_exported_file_that_answers_otherwise_is_not_kept(place, trainings, capsys, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1)
    assert place.run("export", run_id=trainings[0], format="torch_export") == 1
    assert "the file is not kept" in capsys.readouterr().err
    run = place.runs("export")[0]
    assert run.info.status == "FAILED"
    assert not [path for path in place.artifacts(run.info.run_id) if path.startswith("model")]


def test_an_unknown_format_is_refused_in_one_line(place, capsys):
    assert place.run("export", format="onxx") == 2
    assert "format=onxx" in capsys.readouterr().err


def test_evaluation_registers_what_is_served_and_compares_it_with_the_champion(place, trainings, capsys):
    older, newer = trainings
    assert place.run("evaluate", run_id=older, register_as="my digits") == 0
    assert "registered as my digits version 1, champion: the first version of this name" in capsys.readouterr().err
    champion = load_served(place, "models:/my digits@champion")
    assert champion.predict(IMAGES).equals(served_by_run(place, older).predict(IMAGES))

    assert place.run("evaluate", run_id=newer, register_as="my digits") == 0
    said = capsys.readouterr().err
    evaluation = place.runs("evaluate")[0].data.tags
    # Both trainings are short and have the same test images. Either of them may be better.
    assert "registered as my digits version 2" in said and "McNemar's exact test, p = " in said
    assert evaluation["registered"] in said and evaluation["registered"] in evaluation["mlflow.note.content"]
    champion = place.client.get_model_version_by_alias("my digits", "champion")

    other_images = {**TINY, "limit_test": 50, "limit_train": 100, "steps": "train,evaluate"}
    assert place.run("main", **other_images, register_as="my digits") == 0
    said = "registered as my digits version 3, not compared: version"
    why = f"has no evaluation on the same test images. `python -m pipeline evaluate --run_id {champion.run_id}`"
    note = place.runs("main")[0].data.tags["mlflow.note.content"]
    for where in (capsys.readouterr().err, html.unescape(note)):
        assert said in where and why in where
    assert place.client.get_model_version_by_alias("my digits", "champion").version == champion.version


@pytest.mark.parametrize(
    ("step", "wrong", "reason"),
    [
        ("evaluate", {"register_as": "a/b"}, "register_as=a/b"),
        ("evaluate", {"register_as": "a'b"}, "register_as=a'b"),
        ("evaluate", {"register_as": "x", "checkpoint": "last"}, "the served model is checkpoint=best, not last"),
        ("main", {"register_as": "x", "steps": "train"}, "evaluate is not among the steps train"),
    ],
)
def test_an_impossible_registration_is_refused_in_one_line(place, capsys, step, wrong, reason):
    assert place.run(step, **wrong) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1
