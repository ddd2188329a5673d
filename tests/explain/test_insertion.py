"""Insertion, the second measure of maps: which maps it prefers, what chance scores, and how two measures agree."""

import numpy as np
import pytest
import torch

from pipeline.explain import insertion
from pipeline.explain.faithfulness import measure, random_maps
from tests.explain import test_faithfulness


class TopLeft(test_faithfulness.TopLeft):
    """Class 0 is contrast in the top-left quadrant. A blurred image has no contrast there."""

    def forward(self, images):
        self.shown.append(images)
        return (images[:, 0, :8, :8].std(dim=(1, 2)) - 0.2)[:, None] * 2 * self.weight


def scene(num_images):
    """Noise with high contrast in the top-left quadrant, its class, and the perfect map."""
    noise, targets, perfect = test_faithfulness.scene(num_images)
    return torch.where(torch.from_numpy(perfect)[:, None] > 0, (noise - 0.9) * 10, noise), targets, perfect


def test_a_perfect_map_is_preferred_to_random_ones_and_these_to_its_inverse():
    images, targets, perfect = scene(128)
    model = TopLeft()

    def score(maps):
        return insertion.scores(model, images, targets, maps, seed=0).mean()

    assert score(perfect) > 0.2
    assert abs(score(random_maps(perfect.shape, 0, (4, 4)))) < 0.1
    assert score(1 - perfect) == pytest.approx(-score(perfect), abs=0.02)


def test_the_seed_decides_the_order_of_a_blank_map_which_scores_about_0():
    images, targets, perfect = scene(128)
    blank = np.zeros_like(perfect)
    first, again, other = (insertion.scores(TopLeft(), images, targets, blank, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert abs(first.mean()) < 3 * first.std() / np.sqrt(128) + 1e-3


def test_insertion_shows_exactly_the_given_shares_of_pixels_from_both_ends():
    images, targets, perfect = scene(4)
    model = TopLeft()
    insertion.scores(model, images, targets, perfect, seed=0)
    kept = [(shown == images).all(1).float().mean(dim=(1, 2)) for shown in model.shown]
    expected = [share for tenth in range(1, 10) for share in (tenth / 10, 1 - tenth / 10)]
    for shares, share in zip(kept, expected, strict=True):
        assert torch.allclose(shares, torch.tensor(share), atol=1 / 256)


def test_equal_scores_always_agree_and_opposite_ones_never():
    one = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
    np.testing.assert_allclose(insertion.agreement(one, one), [1, 1, 0.5])
    np.testing.assert_allclose(insertion.agreement(one, -one), [0, 0, 0.5])
    draw = np.random.default_rng(0)
    chance = insertion.agreement(draw.random((3, 2000)), draw.random((3, 2000)))
    assert chance.mean() == pytest.approx(0.5, abs=0.03)


def test_both_measures_prefer_the_perfect_map():
    images, targets, perfect = scene(32)
    maps = [perfect, random_maps(perfect.shape, 0, (4, 4)), 1 - perfect]
    model = TopLeft()
    removed = np.stack([measure(model, images, targets, each, seed=0).scores for each in maps])
    inserted = np.stack([insertion.scores(model, images, targets, each, seed=0) for each in maps])
    assert insertion.agreement(removed, inserted).mean() > 0.85
