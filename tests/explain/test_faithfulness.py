"""The faithfulness of maps: how the confidence falls as pixels are removed in the order of the map."""

import warnings

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import nn
from torch.overrides import TorchFunctionMode

from pipeline import models
from pipeline.data import batches
from pipeline.explain import faithfulness
from pipeline.explain.faithfulness import impute, measure, random_maps

FRACTIONS = [0.0, 0.2, 0.4, 0.6, 0.8]


class TopLeft(nn.Module):
    """Class 0 is light in the top-left quadrant. Keeps the images that it gets."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([8.0, -8.0]))
        self.shown = []

    def forward(self, images):
        self.shown.append(images)
        return (images[:, 0, :8, :8].mean(dim=(1, 2)) - 0.5)[:, None] * self.weight


def scene(num_images=8):
    """Images with a light top-left quadrant, their class, and the perfect map."""
    images = 0.1 * torch.rand(num_images, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images[:, :, :8, :8] += 0.9
    perfect = np.zeros((num_images, 16, 16), np.float32)
    perfect[:, :8, :8] = 1
    return images, torch.zeros(num_images, dtype=torch.int64), perfect


def holes(num_images, size, seed=0):
    """Coherent holes of the largest size: 80 % of the pixels."""
    maps = torch.from_numpy(random_maps((num_images, size, size), seed, (4, 4)))
    return maps > maps.flatten(1).quantile(0.2, dim=1)[:, None, None]


def test_perfect_map_beats_random_maps_which_beat_its_inverse():
    images, targets, perfect = scene(128)
    model = TopLeft()

    def score(maps):
        return measure(model, images, targets, maps, seed=0).scores.mean()

    assert score(perfect) > 0.4
    assert abs(score(random_maps(perfect.shape, 0, (4, 4)))) < 0.1
    assert score(1 - perfect) < -0.4


def test_curves_start_with_the_images_as_they_are():
    images, targets, perfect = scene()
    model = TopLeft()
    result = measure(model, images, targets, perfect, seed=0)
    assert result.fractions.tolist() == FRACTIONS
    assert result.most_relevant_first.shape == result.least_relevant_first.shape == (8, 5)
    confidence = model(images).softmax(1)[:, 0].detach().numpy()
    np.testing.assert_allclose(result.most_relevant_first[:, 0], confidence, rtol=1e-6)
    np.testing.assert_allclose(result.least_relevant_first[:, 0], confidence, rtol=1e-6)


def test_scores_are_the_mean_gap_between_the_curves():
    most = np.array([[0.9, 0.1, 0.3]])
    least = np.array([[0.9, 0.9, 0.5]])
    result = faithfulness.Faithfulness(np.array([0, 0.25, 0.5]), most, least)
    np.testing.assert_allclose(result.scores, [0.5])


@pytest.mark.parametrize("value", [0, 1])
def test_exactly_the_given_fractions_are_removed_even_if_a_map_has_one_value(value):
    images, targets, _ = scene()
    model = TopLeft()
    measure(model, images, targets, np.full((8, 16, 16), value, np.float32), seed=0)
    removed = [(shown != images).any(1).sum(dim=(1, 2)).unique().tolist() for shown in model.shown]
    assert removed == [[0], [51], [102], [154], [205], [51], [102], [154], [205]]


class Largest(TorchFunctionMode):
    """Records the number of elements of the largest tensor that is created."""

    elements = 0

    def __torch_function__(self, function, types, given=(), named=None):
        made = function(*given, **(named or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_large_images_are_filled_in_batch_by_batch(monkeypatch):
    images, targets, perfect = scene(10)
    whole = measure(TopLeft(), images, targets, perfect, seed=0)
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 4 * 16 * 16)  # as many as four images have
    with Largest() as largest:
        parts = measure(TopLeft(), images, targets, perfect, seed=0)
    assert largest.elements == 4 * 3 * 16 * 16
    np.testing.assert_allclose(parts.most_relevant_first, whole.most_relevant_first, atol=0.02)
    np.testing.assert_allclose(parts.least_relevant_first, whole.least_relevant_first, atol=0.02)


def test_the_seed_decides_the_curves_of_a_blank_map():
    images, targets, _ = scene()
    blank = np.zeros((8, 16, 16), np.float32)
    first, again, other = (measure(TopLeft(), images, targets, blank, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.most_relevant_first, again.most_relevant_first)
    assert (first.most_relevant_first != other.most_relevant_first).any()


def test_the_measure_leaves_the_model_unchanged():
    images, targets, perfect = scene()
    model = models.build("resnet9", num_classes=2, image_size=16, width=4).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    measure(model, images, targets, perfect, seed=0)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("size", [8, 32])
def test_imputation_agrees_with_the_code_of_the_paper_s_authors(size):
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    removed = holes(4, size)
    filled = impute(images, removed, 0, torch.Generator())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = NoisyLinearImputer(noise=0)
        expected = torch.stack([reference(*each) for each in zip(images, (~removed).float(), strict=True)])
    torch.testing.assert_close(filled, expected, atol=5e-3, rtol=0)
    assert (filled != images).any(1).equal(removed)


def test_imputation_of_even_surroundings_is_even_but_for_the_noise():
    images = torch.full((16, 3, 32, 32), 0.7)
    removed = holes(16, 32)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(impute(images, removed, 0, generator), images, atol=1e-4, rtol=0)
    noise = (impute(images, removed, 0.5, generator) - images).permute(0, 2, 3, 1)[removed]
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)


def test_random_maps_are_as_smooth_as_their_grid():
    maps = random_maps((4, 32, 32), 0, (4, 4))
    assert maps.shape == (4, 32, 32)
    assert maps.dtype == np.float32
    assert 0 <= maps.min() < 0.2 < 0.8 < maps.max() <= 1
    assert np.abs(np.diff(maps, axis=1)).max() <= 1 / 8  # from cell to cell, 8 px away, at most 1
    assert np.abs(np.diff(random_maps((4, 32, 32), 0, (32, 32)), axis=1)).max() > 0.5
    np.testing.assert_array_equal(maps, random_maps((4, 32, 32), 0, (4, 4)))
    assert (maps != random_maps((4, 32, 32), 1, (4, 4))).any()
