"""Batches: which images they hold, in which order, and what decides their augmentation."""

import hashlib

import numpy as np
import pytest
import torch

from pipeline.data import Split, batches
from pipeline.data.batches import Batches, TrainBatches, batch_size, derive_seed, resident
from pipeline.params import RecipeParams
from pipeline.training.recipe import load
from tests.small import plain, squares

CPU = torch.device("cpu")


def noisy(images, labels, place, generator):
    """Adds draws from its generator, as crops use it, and from the global random state, as mixup uses it."""
    return images.float() + torch.rand(images.shape, generator=generator) + torch.rand(images.shape), labels


def test_every_image_comes_once_an_epoch_with_its_label_and_the_last_batch_may_be_smaller():
    split = squares(50)
    batches = TrainBatches(split, 16, CPU, seed=0, augment=plain)
    seen = list(batches.epoch(1))
    assert [len(images) for images, _ in seen] == [16, 16, 16, 2]
    assert len(batches) == 4
    images = (torch.cat([images for images, _ in seen]) + 0.3) * 255
    labels = torch.cat([labels for _, labels in seen])
    known = {image.tobytes(): label for image, label in zip(split.source, split.labels, strict=True)}
    back = images.round().to(torch.uint8).numpy()
    assert {image.tobytes() for image in back} == set(known)
    assert [known[image.tobytes()] for image in back] == labels.tolist()


def test_a_few_last_images_join_the_batch_before_so_that_norms_see_no_tiny_batch():
    split = squares(33)
    batches = TrainBatches(split, 16, CPU, seed=0, augment=plain)
    assert [len(labels) for _, labels in batches.epoch(1)] == [16, 17]
    assert [batches.whole_size(number) for number in range(len(batches))] == [16, 17]
    (_, rest), whole = *batches.epoch(1, done=1), list(batches.epoch(1))
    assert torch.equal(rest, whole[1][1])
    assert [len(labels) for _, labels in TrainBatches(squares(3), 64, CPU, seed=0, augment=plain).epoch(1)] == [3]


def test_an_epoch_can_be_repeated_and_differs_from_the_next():
    first, second = (TrainBatches(squares(32), 8, CPU, seed=3, augment=noisy) for _ in range(2))
    list(first.epoch(1))
    torch.rand(5)
    for (a, _), (b, _) in zip(list(first.epoch(2)), list(second.epoch(2)), strict=True):
        assert torch.equal(a, b)
    orders = [torch.cat([labels for _, labels in first.epoch(epoch)]).tolist() for epoch in (1, 2)]
    assert orders[0] != orders[1]


def test_evaluation_batches_keep_the_split_s_order():
    split = squares(10)
    images = torch.cat([images for images, _ in Batches(split, 4, CPU)])
    assert np.array_equal(images.numpy(), split.source)


def test_seeds_of_different_purposes_differ():
    assert len({derive_seed(0, "order", 1), derive_seed(0, "order", 2), derive_seed(1, "order", 1)}) == 3
    assert derive_seed(0, "order", 1) == derive_seed(0, "order", 1) < 2**63


def test_two_epochs_of_alternating_flips_show_every_image_both_ways():
    def shown(images, labels, place, generator):
        return place.mirrored, labels

    split = squares(50)
    split.labels[:] = np.arange(50)
    batches = TrainBatches(split, 16, CPU, seed=0, augment=shown)
    mirrored = {}
    for epoch in (1, 2, 3):
        for flags, labels in batches.epoch(epoch):
            for flag, label in zip(flags.tolist(), labels.tolist(), strict=True):
                mirrored.setdefault(label, []).append(flag)
    assert all(first != second and first == third for first, second, third in mirrored.values())
    assert 10 < sum(first for first, *_ in mirrored.values()) < 40


def test_larger_images_are_processed_in_smaller_batches():
    assert [batch_size(side) for side in (32, 128, 224, 1024, 4096)] == [256, 256, 83, 4, 1]
    assert [batch_size(side, largest=512) for side in (32, 224)] == [512, 83]


@pytest.mark.parametrize("margin", [0, 1])
def test_a_split_moves_to_its_device_a_few_images_at_a_time(margin, monkeypatch):
    taken = []

    class Watched(Split):
        def take(self, positions):
            taken.append(len(positions))
            return super().take(positions)

    whole = squares(50)
    split = Watched(whole.source, whole.rows[::-1], whole.labels, whole.names, margin)
    monkeypatch.setattr(batches, "PIXELS_AT_ONCE", 16 * split.image_size**2)
    images = resident(split, CPU)
    assert taken == [16, 16, 16, 2]
    assert np.array_equal(images.numpy(), split.take(np.arange(50)))


def test_a_batch_knows_how_much_of_the_training_lies_before_it():
    def shown(images, labels, place, generator):
        return torch.tensor(place.passes), labels

    batches = TrainBatches(squares(40), 16, CPU, seed=0, augment=shown)
    assert [passes.item() for passes, _ in batches.epoch(2)] == [1, pytest.approx(4 / 3), pytest.approx(5 / 3)]
    assert [passes.item() for passes, _ in batches.epoch(2, done=2)] == [pytest.approx(5 / 3)]


def test_the_default_recipe_gives_the_same_batches_as_earlier_versions():
    recipe = load(RecipeParams(limit_train=200, limit_test=50, device="cpu"))
    digest = hashlib.sha256()
    for images, labels in recipe.train_batches(0).epoch(1):
        digest.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    assert digest.hexdigest() == "284b7801139d6e7d344ee4e2daf2a3586e3a89049a3a294d5e86afce36677651"


@pytest.mark.parametrize("recipe", [{"crop_area": 0.3}, {"augment": "trivial"}, {"crop_area": 0.3, "augment": "rand"}])
def test_seed_and_epoch_decide_any_augmentation_and_evaluation_takes_the_centre(recipe):
    prepared = load(RecipeParams(limit_train=200, limit_test=50, device="cpu", **recipe))
    first, second = (list(prepared.train_batches(0).epoch(2)) for _ in range(2))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))
    assert not torch.equal(first[0][0], next(iter(prepared.train_batches(1).epoch(2)))[0])
    assert {images.shape[-1] for images, _ in first} == {32}
    stored = prepared.splits.train.source
    assert stored.shape[-1] == (36 if "crop_area" in recipe else 32)
    margin = prepared.params.margin
    whole = stored[prepared.splits.test.rows]
    assert np.array_equal(
        prepared.splits.test.take(np.arange(50)), whole[:, :, margin : 32 + margin, margin : 32 + margin]
    )
