"""The pointing game: if a network learned to recognise digits on texture, its maps must lie on the digit."""

import numpy as np
import pytest
import torch

from benchmarks.maps import named, train
from benchmarks.planted_objects import energy, hits, plant
from pipeline.explain import attribution, faithfulness, insertion, randomisation

NETWORKS = {
    "vit": named("vit", 16, 160, 0.01, patch_size=4, dim=32, depth=2, heads=2),
    "resnet9": named("resnet9", 32, 60, 0.02, width=8),
}


def test_a_digit_is_planted_in_its_box_and_nowhere_else():
    planted, again, unseen = (plant(64, 16, seed) for seed in (0, 0, 1))
    assert torch.equal(planted.images, again.images)
    assert planted.images.shape == (64, 3, 16, 16) and planted.boxes.shape == (64, 16, 16)
    assert (planted.boxes.sum(axis=(1, 2)) == 64).all()
    boxes = torch.from_numpy(planted.boxes)[:, None].expand(-1, 3, -1, -1)
    assert planted.images[boxes].mean() > planted.images[~boxes].mean() + 0.5
    assert set(planted.labels.tolist()) == set(range(10))
    assert not torch.equal(planted.labels, unseen.labels)
    centres = np.argwhere(planted.boxes)
    assert centres[:, 1:].min() == 0 and centres[:, 1:].max() == 15


def test_hits_and_energy_of_simple_maps():
    boxes = np.zeros((4, 4, 4), bool)
    boxes[:, :2, :2] = True
    maps = np.zeros((4, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 3, 3] = 1, 0.5  # on the object, something beside it
    maps[1, 3, 3] = 1  # beside it
    maps[2, 1, 1] = maps[2, 3, 3] = 1  # both alike
    assert hits(maps, boxes).tolist() == [1, 0, 0.5, 0]
    np.testing.assert_allclose(energy(maps, boxes), [2 / 3, 0, 0.5, 0])


@pytest.mark.parametrize("name", ["vit", pytest.param("resnet9", marks=pytest.mark.slow)])
def test_maps_of_auto_point_at_the_object_and_do_so_only_after_training(name):
    family = NETWORKS[name]
    model, planted = train(family, seed=0), plant(128, family.side, seed=1)
    with torch.no_grad():
        assert (model(planted.images).argmax(1) == planted.labels).float().mean() > 0.3

    def maps_of(network):
        return attribution.class_maps(network, family.where(network), planted.images, planted.labels, "auto")

    own, unlearned = maps_of(model), maps_of(randomisation.randomised_copy(model, 0))
    chance = faithfulness.random_maps(own.shape, 0, attribution.grid_size(model, family.where(model), planted.images))
    assert hits(own, planted.boxes).mean() > hits(chance, planted.boxes).mean() + 0.3
    assert energy(own, planted.boxes).mean() > energy(chance, planted.boxes).mean() + 0.1
    assert randomisation.similarity(own, unlearned).mean() < 0.5
    for measure in (lambda *given, seed: faithfulness.measure(*given, seed=seed).scores, insertion.scores):
        scores = [measure(model, planted.images, planted.labels, maps, seed=0).mean() for maps in (own, chance)]
        assert scores[0] > scores[1] + 0.02
