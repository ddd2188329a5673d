"""Twins are copies of an image. They are found after usual changes, and reported once, where they matter most."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from pipeline.data import Split
from pipeline.doctor import duplicates, looks

SIZE = 48


def scenes(num_images, seed=0):
    """Images (N, 3, 48, 48) of soft colours with some edges. All look different."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((num_images, 3, 6, 6), generator=draw)
    fine = torch.nn.functional.interpolate(torch.rand((num_images, 3, 12, 12), generator=draw), SIZE)
    soft = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")
    return ((0.6 * soft + 0.4 * fine).clamp(0, 1) * 255).to(torch.uint8).numpy()


def survey(images):
    """The looks of images (N, 3, 48, 48)."""
    split = Split(images, np.arange(len(images)), np.zeros(len(images), dtype=np.int64), [""] * len(images))
    return looks.survey(split, progress=False)


def find_twins(images, parts, eligible=None, similarity=0.85, labels=None):
    """The table of twins: a row for each copy, with the positions of image and twin."""
    everything = np.ones(len(images), dtype=bool)
    table = duplicates.find(survey(images), parts, everything if eligible is None else eligible, similarity)
    return duplicates.in_order(table, parts, np.zeros(len(images), dtype=int) if labels is None else labels)


def compressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file)


CHANGES = {
    "compressed": compressed,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "halved": lambda image: image.resize((SIZE // 2,) * 2).resize((SIZE,) * 2),
    "a border lost": lambda image: image.crop((1, 1, SIZE - 1, SIZE - 1)).resize((SIZE,) * 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_a_near_duplicate_and_nothing_else_is(change):
    images = scenes(200)
    copy = np.asarray(CHANGES[change](Image.fromarray(images[3].transpose(1, 2, 0)))).transpose(2, 0, 1)
    table = find_twins(np.concatenate([images, copy[None]]), np.repeat([0, 1], [150, 51]))
    assert table[["image", "twin", "kind"]].to_numpy().tolist() == [[200, 3, "near"]]
    assert table["similarity"][0] >= 0.85


def test_a_similarity_of_one_finds_only_exact_copies():
    images = scenes(200)
    table = find_twins(np.concatenate([images, images[3:4], images[4:5] ^ 1]), np.zeros(202, dtype=int), similarity=1)
    assert table[["image", "twin", "kind"]].to_numpy().tolist() == [[200, 3, "exact"]]


def test_test_images_in_train_come_first_then_other_splits_exact_ones_before_near_ones():
    images = scenes(12)
    near = images[0] ^ 1
    planted = np.stack([images[1], near, images[2], images[1]])
    everything = np.concatenate([images, planted])  # 12 in train; 12 and 13 in validation, 14 and 15 in test
    table = find_twins(everything, np.repeat([0, 1, 2], [12, 2, 2]))
    assert table[["image", "twin", "kind"]].to_numpy().tolist() == [
        [14, 2, "exact"],
        [15, 1, "exact"],
        [12, 1, "exact"],
        [15, 12, "exact"],
        [13, 0, "near"],
    ]


def test_many_copies_are_named_once_each():
    images = np.repeat(scenes(1), 500, axis=0)
    table = find_twins(np.concatenate([images, scenes(50, seed=1)]), np.zeros(550, dtype=np.int64))
    assert table["image"].tolist() == [*range(1, 500)]
    assert set(table["twin"]) == {0} and set(table["kind"]) == {"exact"}


def test_an_image_that_is_not_eligible_has_no_twin():
    images = np.concatenate([scenes(20), np.zeros((5, 3, SIZE, SIZE), dtype=np.uint8)])
    parts = np.zeros(25, dtype=np.int64)
    assert len(find_twins(images, parts)) == 4
    assert len(find_twins(images, parts, eligible=parts + np.arange(25) < 20)) == 0


def test_the_twins_do_not_depend_on_how_many_rows_are_compared_at_once(monkeypatch):
    images = np.concatenate([scenes(60), scenes(60) ^ 3])
    parts = np.repeat([0, 2], [80, 40])
    whole = find_twins(images, parts)
    monkeypatch.setattr(duplicates, "CELLS_AT_ONCE", 500)
    assert len(whole) == 60
    assert find_twins(images, parts)[["image", "twin"]].equals(whole[["image", "twin"]])


def test_in_a_set_of_equal_images_each_but_the_first_has_a_twin():
    assert len(find_twins(np.full((10, 3, SIZE, SIZE), 7, dtype=np.uint8), np.zeros(10, dtype=np.int64))) == 9


def test_exact_copies_of_two_classes_come_first_and_are_contradictions():
    images = scenes(6)
    images = np.concatenate([images, images[[0, 1, 2]], np.asarray(images[3:4])])
    images[-1, :, 0, 0] ^= 1  # near, and of another class
    labels = np.array([0, 0, 0, 0, 1, 1, 0, 1, 0, 1])
    parts = np.array([0, 0, 0, 0, 0, 0, 2, 0, 0, 0])
    order = np.argsort(parts, kind="stable")
    images, labels, parts = images[order], labels[order], parts[order]
    table = find_twins(images, parts, labels=labels)
    assert table[["image", "twin"]].to_numpy().tolist()[0] == [6, 1]
    assert duplicates.contradictions(table, labels)[["image", "twin"]].to_numpy().tolist() == [[6, 1]]
