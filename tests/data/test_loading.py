"""What every run reads from a set: the same splits, the same digest, and pixels that stay on disk until used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.division import hold_out, limit
from tests.data.photos import SIZE, load, paint, write_parts, write_photos

BMP_DIGEST, DIGITS_DIGEST = "7b4dc50ce6c81f641a7e41c7f33622d9", "a399727e0b23f87968a12b7de4138e41"


def test_images_stay_on_disk_until_taken(root: Path) -> None:
    write_parts(root)
    train = load(root).train
    base: Any = train.source
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base).__name__ == "mmap"
    taken = train.take(np.array([3, 0, 3]))
    assert taken.shape == (3, 3, SIZE, SIZE) and taken.dtype == np.uint8
    assert taken[:, 0, 0, 0].tolist() == [3, 0, 3]
    taken[:] = 0  # a copy, which a tensor may share
    assert train.nbytes == train.take(np.arange(len(train))).nbytes
    with pytest.raises(ValueError):
        train.source[0] = 0


def test_mean_and_std_are_those_of_the_train_pixels(root: Path) -> None:
    write_photos(root, 20)
    splits = load(root, valid_fraction=0.2)
    pixels = splits.train.take(np.arange(len(splits.train))) / 255
    np.testing.assert_allclose(splits.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(splits.std[:2], pixels.std(axis=(0, 2, 3))[:2], rtol=1e-9)
    assert splits.std[2] == 1 / 255  # blue is constant


def test_every_run_gets_the_same_splits_and_a_limit_takes_a_part_of_them(root: Path) -> None:
    write_photos(root, 50)
    torch.manual_seed(1)
    one = load(root, valid_fraction=0.1, limit_train=40)
    torch.manual_seed(2)
    two = load(root, valid_fraction=0.1, limit_train=40)
    assert one.digest == two.digest and one.valid and two.valid and one.valid.names == two.valid.names
    whole = load(root)
    assert {*one.train.names, *one.valid.names} < {*whole.train.names}
    assert np.bincount(one.train.labels).tolist() == [18, 18]
    assert load(root, limit_test=6).test.labels.tolist() == [0] * 3 + [1] * 3
    assert len(load(root, limit_train=10_000).train) == len(whole.train)


def test_the_digest_depends_on_pixels_image_size_limits_and_validation(root: Path) -> None:
    write_photos(root, 20)
    digests = [
        load(root).digest,
        load(root, image_size=9).digest,
        load(root, limit_train=20).digest,
        load(root, valid_fraction=0.5).digest,
    ]
    paint(root / "cat/0000.png", (255, 255, 255))
    digests.append(load(root).digest)
    assert len({*digests}) == 5 and {len(digest) for digest in digests} == {32}


def test_images_keep_the_digest_of_earlier_versions_unless_new_settings_are_given(root: Path) -> None:
    for number in range(12):
        paint(root / ("cat", "dog")[number % 2] / f"{number:02}.bmp", (number, 20, 7))
    assert load(root, valid_fraction=0.25).digest == BMP_DIGEST
    assert load(root, "digits", valid_fraction=0.1).digest == DIGITS_DIGEST
    others = [
        {"resize": "squash"},
        {"resize": "pad"},
        {"interpolation": "bilinear"},
        {"margin": 1},
        {"image_size": SIZE + 2},
    ]
    digests = {load(root, valid_fraction=0.25, **each).digest for each in others}
    assert len(digests) == 5 and BMP_DIGEST not in digests


def test_a_split_takes_the_centre_and_on_request_its_margin(root: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(4):
            pixels = np.full((SIZE + 4, SIZE + 4, 3), 200, dtype=np.uint8)
            pixels[2:-2, 2:-2] = number
            (root / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    train = load(root, margin=2).train
    centre, whole = (split.take(np.arange(len(train))) for split in (train, train.with_margin()))
    assert centre.shape[1:] == (3, SIZE, SIZE) and centre.max() < 4
    assert whole.shape[1:] == (3, SIZE + 4, SIZE + 4) and (whole[:, :, :2] == 200).all()
    assert np.array_equal(whole[:, :, 2:-2, 2:-2], centre)
    assert (train.nbytes, train.with_margin().nbytes) == (centre.nbytes, whole.nbytes)


def test_loading_leaves_the_global_random_state_alone(root: Path) -> None:
    write_parts(root)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load(root)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5, 0.8])
def test_holding_out_keeps_every_class_in_train(fraction: float) -> None:
    labels = np.repeat([0, 1, 2, 3], [1, 2, 100, 40])
    rows = np.arange(len(labels))
    stay, held = hold_out(rows, labels, fraction, "valid")
    assert {*labels[stay]} == {0, 1, 2, 3}
    assert sorted([*stay, *held]) == rows.tolist()
    assert len(held) == round(fraction * len(labels))
    assert abs((labels[held] == 2).sum() - fraction * 100) <= 2


def test_limits_keep_every_class_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [1, 100, 899])
    taken = limit(np.arange(1000), labels, 100, 3, "limit_train")
    assert len(taken) == 100 and (np.diff(taken) > 0).all()
    assert np.abs(np.bincount(labels[taken]) - [1, 10, 89]).max() <= 1
    assert np.bincount(labels[limit(np.arange(1000), labels, 3, 3, "limit_train")]).tolist() == [1, 1, 1]
