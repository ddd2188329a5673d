"""Several classifiers act as one: its probabilities are their mean, in memory, in a file and in other programs."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from pipeline.model_files import checkpoint, export
from pipeline.model_files.classifier import Classifier
from pipeline.model_files.ensemble import join
from pipeline.results import novelty
from pipeline.results.rejection import Outcomes
from pipeline.results.temperature import Temperature
from pipeline.training.calibration import Calibration, logits_and_features
from tests.model_files.test_export import IMAGES, classifier

IDS = ("a" * 32, "b" * 32)


def pair(name="fast"):
    """(two classifiers, their ensemble)."""
    members = [classifier(name, seed) for seed in (0, 1)]
    return members, join(dict(zip(IDS, members, strict=True)))


@pytest.mark.parametrize("name", ["fast", "vit"])
def test_an_ensemble_gives_the_mean_of_its_members_probabilities_before_and_after_it_is_saved(name, tmp_path):
    members, together = pair(name)
    each = np.stack([member.probabilities(IMAGES) for member in members])
    assert np.abs(each[0] - each[1]).max() > 0.01  # otherwise either member would pass
    together.save(tmp_path / "both.safetensors")
    loaded = Classifier.load(tmp_path / "both.safetensors")
    for found in (together, loaded):
        np.testing.assert_allclose(found.probabilities(IMAGES), each.mean(0), atol=1e-6)
        assert [member.run_id for member in found.description.members] == list(IDS)


def test_an_exported_ensemble_has_the_calibration_of_all_and_the_features_of_the_first(tmp_path):
    members, together = pair()
    images = torch.from_numpy(IMAGES)
    _, features = logits_and_features(together.model, together.normalise(images), "fp32")
    assert np.array_equal(features, logits_and_features(members[0].model, members[0].normalise(images), "fp32")[1])
    outcomes = Outcomes(np.sort(together.probabilities(IMAGES).max(axis=1)), np.arange(64) >= 32)
    familiar = novelty.fit(features, np.arange(64) % 3, features)
    fitted = Temperature(0.5, 64, 1.0, 0.9, 0.1, 0.05)
    calibrated = replace(together, calibration=Calibration(fitted, familiar, outcomes, 0.02))
    calibrated.save(tmp_path / "both.safetensors")
    expected = Classifier.load(tmp_path / "both.safetensors").answer(IMAGES)
    squares = together.probabilities(IMAGES) ** 2
    np.testing.assert_allclose(expected.probabilities, squares / squares.sum(1, keepdims=True), atol=1e-6)
    export.write(calibrated, "onnx", tmp_path / "both.onnx", {})
    session = onnxruntime.InferenceSession(tmp_path / "both.onnx", providers=["CPUExecutionProvider"])
    probabilities, unsure, unlike = session.run(None, {"images": IMAGES})
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-5)
    assert (unsure == expected.unsure).mean() > 0.95 and (unlike == expected.unlike).mean() > 0.95


@pytest.mark.parametrize("part", ["classes", "image_size"])
def test_classifiers_that_differ_are_no_ensemble(part):
    (one, other), _ = pair()
    changed = {"classes": ("a", "b", "c"), "image_size": 32}[part]
    other = replace(other, description=other.description.model_copy(update={part: changed}))
    with pytest.raises(ValueError, match=f"no ensemble of runs a+ and b+: they differ in {part}"):
        join(dict(zip(IDS, (one, other), strict=True)))


def test_a_file_with_another_number_of_members_is_refused(tmp_path):
    _, together = pair()
    described = together.description.model_dump(mode="json")
    for members in ([], described["members"][:1], 101 * described["members"][:1], [{"run_id": "../x"}] * 2):
        checkpoint.save(tmp_path / "both.safetensors", together.model.state_dict(), {**described, "members": members})
        with pytest.raises(ValueError, match="weights and description do not match"):
            Classifier.load(tmp_path / "both.safetensors")
