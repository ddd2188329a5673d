"""Labels are suspect if their images look like another class. No network judges images that it learnt from."""

import numpy as np
import torch

from pipeline.data import Report, Split, Splits
from pipeline.doctor import suspect_labels

SIDE = 32
OPTIONS = {"seed": 0, "device": torch.device("cpu"), "precision": "fp32"}


def two_kinds(num_images, wrong, seed=0):
    """Splits of noisy stripes, vertical in class 0 and horizontal in class 1. The labels of `wrong` are swapped."""
    draw = np.random.default_rng(seed)
    kind = np.arange(num_images) % 2
    wave = np.sin(np.arange(SIDE)[None] * 0.9 + draw.uniform(0, 6, num_images)[:, None])
    upright, level = (np.broadcast_to(each, (num_images, SIDE, SIDE)) for each in (wave[:, None, :], wave[:, :, None]))
    grey = np.where(kind[:, None, None] == 0, upright, level)
    noisy = 128 + 60 * grey[:, None] + draw.normal(0, 30, (num_images, 3, SIDE, SIDE))
    images = noisy.clip(0, 255).astype(np.uint8)
    given = kind.astype(np.int64)
    given[wrong] = 1 - given[wrong]
    train = Split(images, np.arange(num_images), given, [str(i) for i in range(num_images)])
    return Splits("stripes", ("0", "1"), train, None, train, "", (0.5,) * 3, (0.25,) * 3, True, Report(), {})


def test_swapped_labels_are_found_by_networks_that_never_saw_them():
    wrong = [5, 40, 77, 102]
    splits = two_kinds(120, wrong)
    filled, held_out = np.zeros((120, 2)), []
    alone = np.arange(120)
    for held, probabilities in suspect_labels.probabilities(splits, alone, folds=3, epochs=6, flip="auto", **OPTIONS):
        filled[held] = probabilities
        held_out += held.tolist()
    assert sorted(held_out) == list(range(120))
    assert np.allclose(filled.sum(1), 1)
    table = suspect_labels.suspects(splits.train.labels, filled)
    assert {*wrong} <= {*table["image"]}
    assert {*table["image"][:4]} == {*wrong}
    assert (table["suggested"] == 1 - table["given"])[:4].all()


def test_classes_that_are_mirror_images_are_told_apart_if_training_mirrors_nothing():
    splits = two_kinds(120, [])
    ramp = np.broadcast_to(np.linspace(40, 215, SIDE), (3, SIDE, SIDE))
    for image, label in zip(splits.train.source, splits.train.labels, strict=True):
        image[:] = ramp[..., :: 1 - 2 * label]
    folds = list(suspect_labels.probabilities(splits, np.arange(120), folds=2, epochs=4, flip="off", **OPTIONS))
    assert all((said.argmax(1) == splits.train.labels[held]).all() for held, said in folds)


def test_labels_that_all_agree_are_not_suspect():
    given = np.repeat([0, 1, 2], 20)
    probabilities = np.full((60, 3), 0.05)
    probabilities[np.arange(60), given] = 0.9
    assert len(suspect_labels.suspects(given, probabilities)) == 0
    probabilities[7] = [0.02, 0.96, 0.02]
    table = suspect_labels.suspects(given, probabilities)
    assert table[["image", "given", "suggested"]].to_numpy().tolist() == [[7, 0, 1]]


def test_classes_with_too_few_families_for_the_folds_cannot_be_checked():
    given = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    assert suspect_labels.can_be_checked(given, np.arange(8), 3).tolist() == [True] * 7 + [False]
    assert (
        suspect_labels.can_be_checked(given, np.array([0, 1, 2, 3, 4, 4, 5, 6]), 3).tolist() == [True] * 4 + [False] * 4
    )


def test_no_fold_divides_a_family_of_groups_and_twins():
    groups = ["pond", "", "pond", "", "", "roof", "roof", ""]
    families = suspect_labels.families(groups, np.array([3, 5]), np.array([1, 0]))
    together = [{*np.flatnonzero(families == number).tolist()} for number in np.unique(families)]
    assert sorted(map(sorted, together)) == [[0, 2, 5, 6], [1, 3], [4], [7]]

    draw = np.random.default_rng(0)
    labels, families = np.arange(80) % 2, np.arange(80) // 4
    features = draw.normal(size=(80, 5)) + 4 * labels[:, None]
    wrong = np.array([6, 31])
    given = labels.copy()
    given[wrong] = 1 - given[wrong]
    filled = np.zeros((80, 2))
    for held, found in suspect_labels.probabilities_from_features(features, given, families, folds=4, seed=0):
        assert not {*families[held]} & {*np.delete(families, held)}
        filled[held] = found
    assert (filled.argmax(1) == labels).all()


def test_labels_that_an_exact_copy_contradicts_come_first_even_if_the_networks_agree_with_them():
    given = np.array([0, 1] * 10)
    probabilities = np.where(given[:, None] == np.arange(2), 0.9, 0.1)
    probabilities[4] = [0.05, 0.95]  # a suspect without a copy
    of_copy = np.full(20, -1)
    of_copy[[2, 3]] = [1, 0]
    table = suspect_labels.suspects(given, probabilities, of_copy)
    assert {*table["image"][:2]} == {2, 3} and dict(zip(table["image"], table["suggested"], strict=True))[2] == 1
    without = suspect_labels.suspects(given, probabilities)["image"].tolist()
    assert table["image"][2:].tolist() == without and 2 not in without and 3 not in without
