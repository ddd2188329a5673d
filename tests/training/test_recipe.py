"""A training uses exactly the parameters that the user declares."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.synthetic import splits
from pipeline import models
from pipeline.params import LadderParams, RecipeParams, TrainParams
from pipeline.training import range_test, recipe
from pipeline.training.range_test import climb
from pipeline.training.recipe import Recipe

SMALL = {"model": "resnet9", "width": 4, "batch_size": 16, "optimizer": "sgd", "crop_padding": 0, "flip": "off"}


def recipe_of(params, num_images=64):
    return Recipe(params, splits(num_images), torch.device("cpu"), "fp32")


def seen(params):
    """The batches that a training takes: normalised images per update."""
    batches = []
    training = recipe_of(params).one_cycle(0.01)
    model = training.evaluated
    model.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    list(training.events())
    return batches


def test_images_grow_after_their_share_of_the_updates():
    params = TrainParams(**SMALL, epochs=2, first_size=16, first_share=0.5)
    assert [batch.shape[-1] for batch in seen(params)] == [16] * 4 + [32] * 4


def test_alternating_flips_mirror_each_image_every_other_time():
    plain = TrainParams(**SMALL, epochs=2)
    flipped = plain.model_copy(update={"flip": "alternate"})
    for one, other in zip(*(torch.cat(seen(params)).split(64) for params in (plain, flipped)), strict=True):
        assert {bool(torch.equal(a, b)) for a, b in zip(one, other, strict=True)} == {True, False}
    first, second = torch.cat(seen(flipped)).split(64)
    mirrored = {row.numpy().tobytes() for row in first.flip(-1).contiguous()}
    assert all(row.numpy().tobytes() in mirrored for row in second)


def test_batch_norms_take_their_momentum():
    model = recipe_of(TrainParams(**SMALL, norm_momentum=0.4)).model(0)
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.4}


def test_weights_that_are_fitted_to_images_use_fewer_images_if_they_are_large(monkeypatch):
    taken = []
    monkeypatch.setattr(models, "fit_to_images", lambda name, model, images: taken.append(images.shape))
    for side in (32, 128):
        params = TrainParams(model="fast", image_size=side, width=4)
        Recipe(params, splits(400, size=side), torch.device("cpu"), "fp32").model(0)
    assert [shape[0] for shape in taken] == [400, 312]


def test_the_range_test_weighs_classes_as_training_does():
    ladder = LadderParams(ladder_steps=20, ladder_min_lr=1e-4, ladder_max_lr=1e-2)
    losses = {}
    for weights in ("none", "balanced"):
        known = recipe_of(RecipeParams(**SMALL, class_weights=weights))
        known.splits.train.labels[:] = np.repeat(np.arange(10), [55, *[1] * 9])
        losses[weights] = climb(range_test.training(known, ladder, 0), 20).loss
    assert not np.allclose(losses["none"], losses["balanced"], rtol=1e-2)


@pytest.mark.parametrize(
    ("ladder", "is_same"),
    [
        ({"num_repeats": 3}, True),  # as auto says here
        ({"num_repeats": 1}, False),
        ({"ladder_steps": 20}, False),
        ({"ladder_min_lr": 1e-6}, False),
        ({"ladder_max_lr": 1e-4}, False),
    ],
)
def test_the_fingerprint_of_a_range_test_depends_on_its_ladder(ladder, is_same):
    known = recipe_of(TrainParams(**SMALL, lr_rule="steepest"))
    fingerprints = {known.fingerprint(LadderParams()), known.fingerprint(LadderParams(**ladder))}
    assert (len(fingerprints) == 1) == is_same
    assert known.fingerprint() not in fingerprints


@pytest.mark.parametrize(
    ("num_images", "image_size", "ladders"),
    [(recipe.LARGE_SET, 32, 3), (recipe.LARGE_SET + 1, 32, 1), (250, 224, 1), (150, 224, 3)],
)
def test_large_sets_have_one_ladder(num_images, image_size, ladders):
    prepared = recipe_of(RecipeParams(image_size=image_size), num_images)
    assert prepared.num_ladders(LadderParams()) == ladders
    assert prepared.num_ladders(LadderParams(num_repeats=2)) == 2
