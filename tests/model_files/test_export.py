"""Every exported network gives the same probabilities in other programs, for any number of images."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from pipeline import models
from pipeline.model_files import export
from pipeline.model_files.classifier import Classifier, parse
from pipeline.models.stages import head
from pipeline.results import novelty, prediction_sets
from pipeline.results.rejection import Outcomes
from pipeline.training.calibration import Calibration, logits_and_features
from tests.models.test_backbones import HEAVY, LIGHT

SIZE = 16
CLASSES = ["a", "=b", "<c>"]
OPTIONS = {
    "resnet18": {"width": 4},
    "resnet9": {"width": 4},
    "fast": {"width": 4},
    "ultimus": {},
    "vit": {"patch_size": 4, "dim": 12, "depth": 2, "heads": 2},
}
QUICK = ("fast", "vit")  # to export
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 3, SIZE, SIZE), dtype=np.uint8)


def classifier(name, seed=0):
    """A classifier with changed weights: some fresh networks give the same probabilities for every image."""
    torch.manual_seed(seed)
    model = models.build(name, num_classes=len(CLASSES), image_size=SIZE, **OPTIONS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    described = {
        "network": {"name": name, "options": OPTIONS[name]},
        "image_size": SIZE,
        "classes": CLASSES,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.2, 0.3],
        "margin": 3,
    }
    return Classifier(model, parse(described))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in models.MODELS]
)
def test_onnx_runtime_gives_the_probabilities_of_every_network_from_plain_images(name, tmp_path):
    trained = classifier(name)
    version = export.write(trained, "onnx", tmp_path / "model.onnx", {"run_id": "abc"})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (sent,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (sent.name, sent.type, sent.shape) == ("images", "tensor(uint8)", ["batch", 3, SIZE, SIZE])
    assert (answered.name, answered.shape) == ("probabilities", ["batch", len(CLASSES)])
    expected = trained.probabilities(IMAGES)
    assert expected.std(axis=0).max() > 0.005  # otherwise any file would pass
    for number in (64, 1, 3):
        (found,) = session.run(None, {"images": IMAGES[:number]})
        np.testing.assert_allclose(found, expected[:number], atol=1e-5)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == CLASSES
    assert (metadata["image_size"], metadata["run_id"]) == (str(SIZE), "abc")
    assert (metadata["resize"], metadata["interpolation"], metadata["margin"]) == ("crop", "bicubic", "3")
    assert version == "opset 20"
    assert export.difference(trained, "onnx", tmp_path / "model.onnx", IMAGES) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # no other file


@pytest.mark.parametrize("name", models.MODELS)
def test_an_exported_program_needs_only_torch(name, tmp_path):
    trained = classifier(name)
    version = export.write(trained, "torch_export", tmp_path / "model.pt2", {})
    metadata = {"classes": "", "image_size": ""}
    model = torch.export.load(tmp_path / "model.pt2", extra_files=metadata).module()
    expected = trained.probabilities(IMAGES)
    for number in (64, 1, 3):
        np.testing.assert_allclose(model(torch.from_numpy(IMAGES[:number])).detach(), expected[:number], atol=1e-5)
    assert json.loads(metadata["classes"]) == CLASSES and metadata["image_size"] == str(SIZE)
    assert version == f"torch {torch.__version__}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [*LIGHT.items(), *HEAVY.items()])
def test_a_network_of_every_family_of_torchvision_is_exported(name, size, tmp_path):
    torch.manual_seed(0)
    model = models.build(name, num_classes=len(CLASSES), image_size=size)
    nn.init.normal_(head(model)[1].weight, std=0.1)  # the head of a vision transformer starts at zero
    images = np.random.default_rng(0).integers(0, 256, (8, 3, size, size), dtype=np.uint8)
    described = {"network": {"name": name, "options": {}}, "image_size": size, "classes": CLASSES}
    trained = Classifier(model, parse({**described, "mean": [0.5] * 3, "std": [0.25] * 3}))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # takes the statistics of these images; fresh ones would give equal outputs
    with torch.no_grad():
        model.train()(trained.normalise(torch.from_numpy(images)))
    model.eval()
    assert trained.probabilities(images).std(axis=0).max() > export.TOLERANCE  # otherwise any file would pass
    for form, suffix in (("onnx", "onnx"), ("torch_export", "pt2")):
        export.write(trained, form, tmp_path / f"model.{suffix}", {})
        assert export.difference(trained, form, tmp_path / f"model.{suffix}", images) <= export.TOLERANCE


def calibrated(name):
    """The classifier of that name, calibrated on IMAGES."""
    bare = classifier(name)
    _, features = logits_and_features(bare.model, bare.normalise(torch.from_numpy(IMAGES)), "fp32")
    sure = np.sort(bare.probabilities(IMAGES).max(axis=1))
    outcomes = Outcomes(sure, np.arange(64) >= 32)  # the less confident half was wrong
    familiar = novelty.fit(features, np.arange(64) % 3, features)
    sets = prediction_sets.fit(bare.probabilities(IMAGES)[np.arange(64), np.arange(64) % len(CLASSES)])
    return Classifier(bare.model, bare.description, Calibration(None, familiar, outcomes, 0.02, sets))


@pytest.mark.parametrize(("name", "form"), [("resnet18", "onnx"), ("vit", "torch_export")])
def test_an_exported_file_has_the_same_unsure_and_unlike_answers_and_the_same_sets(name, form, tmp_path):
    trained = calibrated(name)
    familiar = trained.calibration.familiar
    flat = np.broadcast_to(IMAGES[:, :, :1, :1], IMAGES.shape)
    expected = trained.answer(np.concatenate([IMAGES, flat]))
    assert 0 < expected.unsure[:64].sum() < 64 and 10 < expected.unlike.sum() < 118
    suffix = export.FORMATS[form].suffix
    export.write(trained, form, tmp_path / f"model{suffix}", {})
    both = np.concatenate([IMAGES, flat])
    if form == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
        assert [each.name for each in session.get_outputs()] == ["probabilities", "unsure", "unlike", "in_set"]
        found = session.run(None, {"images": both})
    else:
        model = torch.export.load(tmp_path / "model.pt2").module()
        found = [each.detach().numpy() for each in model(torch.from_numpy(both))]
    near = np.abs(expected.distances - familiar.limit) < 1e-3 * familiar.limit
    assert near.sum() < 4
    assert (found[1] == expected.unsure).mean() > 0.98  # one image is at the threshold itself
    assert np.array_equal(found[2][~near], expected.unlike[~near])
    assert expected.sets.any(axis=1).all() and (~expected.sets).sum() > 0
    assert (found[3] == expected.sets).mean() > 0.99  # one class is at the threshold itself
    assert export.difference(trained, form, tmp_path / f"model{suffix}", IMAGES) < 1e-5


def test_an_image_whose_features_are_no_numbers_is_unlike_all_others():
    trained = calibrated("vit")
    with torch.no_grad():
        trained.model.conv_proj.weight[0] = torch.nan
    assert trained.answer(IMAGES[:4]).unlike.all()
    assert export.Portable(trained)(torch.from_numpy(IMAGES[:4]))[2].all()


def test_a_file_with_other_weights_is_detected(tmp_path):
    file = tmp_path / "model.pt2"
    export.write(classifier("ultimus"), "torch_export", file, {})
    assert export.difference(classifier("ultimus"), "torch_export", file, IMAGES) < 1e-5
    assert export.difference(classifier("ultimus", seed=1), "torch_export", file, IMAGES) > export.TOLERANCE


def test_weights_too_large_for_onnx_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"weights of 0\.0 GB do not fit in one file: use torch_export"):
        export.write(classifier("ultimus"), "onnx", tmp_path / "model.onnx", {})
