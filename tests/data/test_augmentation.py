"""Augmentation: each image has its own random draw, and each function does what its name says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from pipeline.data import augmentation

SIZE = 8


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture
def image() -> Tensor:
    """An image (3, 8, 8) uint8 whose pixels are all different."""
    return torch.randperm(256, generator=seeded())[: 3 * SIZE * SIZE].reshape(3, SIZE, SIZE).to(torch.uint8)


@pytest.fixture
def copies(image: Tensor) -> Tensor:
    """512 copies of one image: (512, 3, 8, 8) uint8."""
    return image.expand(512, -1, -1, -1)


def test_crops_are_windows_of_the_padded_image_and_all_windows_occur(image: Tensor, copies: Tensor) -> None:
    padding = 2
    padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    offsets = range(2 * padding + 1)
    windows = {padded[:, y : y + SIZE, x : x + SIZE].tobytes() for y in offsets for x in offsets}
    crops = augmentation.random_crop(copies, padding, seeded())
    assert crops.shape == copies.shape and crops.dtype == torch.uint8
    assert {crop.contiguous().numpy().tobytes() for crop in crops} == windows


def test_crop_reflects_up_to_one_less_than_the_image(copies: Tensor) -> None:
    assert augmentation.random_crop(copies, SIZE - 1, seeded()).shape == copies.shape
    with pytest.raises(ValueError, match="crop_padding=8 does not fit images of 8x8 px: use 0 to 7"):
        augmentation.random_crop(copies, SIZE, seeded())


def test_crop_without_padding_changes_nothing(copies: Tensor) -> None:
    assert torch.equal(augmentation.random_crop(copies, 0, seeded()), copies)


def test_crop_on_a_gpu_gathers_the_same_pixels(copies: Tensor) -> None:
    down, across = torch.randint(-2, 3, (2, 512, 1, 1), generator=seeded())
    rows, columns = (augmentation._reflect(each + torch.arange(SIZE), SIZE) for each in (down, across))
    assert torch.equal(augmentation._gathered(copies, rows, columns), augmentation.random_crop(copies, 2, seeded()))


def test_crop_keeps_height_and_width_apart() -> None:
    images = torch.arange(2 * 3 * 6 * 4).reshape(2, 3, 6, 4)
    assert augmentation.random_crop(images, 3, seeded()).shape == (2, 3, 6, 4)


def test_resized_crops_are_windows_of_any_place_area_and_shape() -> None:
    # The colour of a pixel is its position, so two colours of a crop give the size of its window.
    side, size = 64, 32
    along = torch.arange(side) * 4
    image = torch.stack([along.expand(side, side), along[:, None].expand(side, side), along.expand(side, side)])
    crops = augmentation.random_resized_crop(
        image.to(torch.uint8).expand(2000, -1, -1, -1), size, 0.25, seeded()
    ).float()
    assert crops.shape == (2000, 3, size, size)
    across, down = crops[:, 0, 0, :], crops[:, 1, :, 0]
    # Pixels of a window are sampled at their centres: the first and the last are size - 1 of size pixels apart.
    width, height = ((each[:, -2] - each[:, 1]) / (4 * side) * size / (size - 3) for each in (across, down))
    area, shape = width * height, width / height
    assert 0.23 < area.min() < 0.3 and 0.95 < area.max() < 1.02
    assert 0.73 < shape.min() < 0.8 and 1.25 < shape.max() < 1.37
    assert area.mean() == pytest.approx(0.62, abs=0.02)
    for each in (across, down):
        assert each.min() == 0 and each.max() > 250  # up to the borders
        assert each.mean() == pytest.approx(126, abs=2)  # and no side is preferred


def test_a_resized_crop_of_the_whole_at_its_own_size_changes_nothing(image: Tensor, copies: Tensor) -> None:
    crops = augmentation.random_resized_crop(copies, SIZE, 1.0, seeded())
    whole = (crops == image).flatten(1).float().mean(1)
    assert whole.max() == 1  # the draw whose shape is closest to the shape of the image


def test_about_half_of_the_images_are_flipped_independently(image: Tensor, copies: Tensor) -> None:
    flipped = augmentation.random_flip(copies, seeded())
    mirrored = sum(torch.equal(each, image.flip(-1)) for each in flipped)
    untouched = sum(torch.equal(each, image) for each in flipped)
    assert mirrored + untouched == 512
    assert 200 < mirrored < 312  # five standard deviations


def test_cutout_clears_one_square_clipped_at_the_borders() -> None:
    holes = augmentation.cutout(torch.ones(512, 3, SIZE, SIZE), 4, seeded()) == 0
    assert torch.equal(holes[:, 0], holes[:, 1]) and torch.equal(holes[:, 0], holes[:, 2])
    heights, widths = holes[:, 0].any(dim=2).sum(dim=1), holes[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(holes[:, 0].sum(dim=(1, 2)), heights * widths)  # a full rectangle
    assert {*heights.tolist()} == {*widths.tolist()} == {2, 3, 4}  # a centre on the border leaves half
    assert len({hole.numpy().tobytes() for hole in holes}) > 50


@pytest.mark.parametrize("size", [1, 3, 4])
def test_cutout_inside_the_image_has_its_full_area(size: int) -> None:
    areas = (augmentation.cutout(torch.ones(256, 3, 64, 64), size, seeded())[:, 0] == 0).sum(dim=(1, 2))
    assert areas.max() == size * size
    assert (areas == size * size).float().mean() > 0.8


def test_cutout_leaves_its_input_alone() -> None:
    images = torch.ones(4, 3, SIZE, SIZE)
    augmentation.cutout(images, 4, seeded())
    assert images.min() == 1


def test_only_the_generator_decides_the_augmentation(copies: Tensor) -> None:
    def augmented(seed: int) -> Tensor:
        draw = seeded(seed)
        images = augmentation.random_flip(augmentation.random_crop(copies, 2, draw), draw)
        return augmentation.cutout(images.float(), 4, draw)

    first = augmented(1)
    torch.manual_seed(99)
    assert torch.equal(first, augmented(1))
    assert not torch.equal(first, augmented(2))


def test_normalise_matches_its_definition_and_keeps_its_input() -> None:
    images = torch.randint(0, 256, (5, 3, SIZE, SIZE), generator=seeded(), dtype=torch.uint8)
    before = images.clone()
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
    normalised = augmentation.normalise(images, mean, std)
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(normalised.double(), expected, atol=1e-6, rtol=1e-5)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mix_yields_soft_labels_that_sum_to_one(mixup: float, cutmix: float) -> None:
    torch.manual_seed(0)
    images = torch.randn(16, 3, SIZE, SIZE)
    labels = torch.arange(16) % 4
    mixed, soft = augmentation.mix(images, labels, 4, mixup, cutmix)
    assert mixed.shape == images.shape and not torch.equal(mixed, images)
    assert soft.shape == (16, 4)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(16))
    assert soft.gather(1, labels[:, None]).min() > 0


def test_mix_picks_between_both_blends() -> None:
    torch.manual_seed(0)
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, SIZE, SIZE).contiguous()
    pasted = 0
    for _ in range(40):
        mixed, _ = augmentation.mix(images, torch.arange(4), 4, 0.8, 1.0)
        pasted += bool(torch.equal(mixed, mixed.round()))  # CutMix copies pixels, MixUp averages them
    assert 8 < pasted < 32


@settings(derandomize=True, deadline=None, max_examples=100)
@given(data=st.data())
def test_any_batch_keeps_its_shape_and_type(data: st.DataObject) -> None:
    batch, height, width = data.draw(st.integers(0, 5)), *(data.draw(st.integers(1, 12)) for _ in range(2))
    padding, hole = data.draw(st.integers(0, min(height, width) - 1)), data.draw(st.integers(0, 20))
    seed = data.draw(st.integers(0, 2**31))
    images = torch.randint(0, 256, (batch, 3, height, width), generator=seeded(seed), dtype=torch.uint8)
    pixels = augmentation.normalise(images, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    for dtype, given_images in ((torch.uint8, images), (torch.float32, pixels)):
        draw, before = seeded(seed), given_images.clone()
        results = [augmentation.random_crop(given_images, padding, draw), augmentation.random_flip(given_images, draw)]
        if dtype == torch.float32:
            results.append(augmentation.cutout(given_images, hole, draw))
        for result in results:
            assert result.shape == (batch, 3, height, width) and result.dtype == dtype
        assert torch.equal(given_images, before)
        for result in results[:2]:  # these move pixels, and make none
            for image, source in zip(result, given_images, strict=True):
                assert {*image.flatten().tolist()} <= {*source.flatten().tolist()}


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    batch=st.integers(1, 6),
    size=st.integers(2, 12),
    num_classes=st.integers(2, 5),
    mixup=st.sampled_from([0.0, 0.2, 2.0]),
    cutmix=st.sampled_from([0.1, 1.0]),
)
def test_any_mixed_batch_keeps_its_shape_and_type(
    batch: int, size: int, num_classes: int, mixup: float, cutmix: float
) -> None:
    images, labels = torch.rand(batch, 3, size, size), torch.arange(batch) % num_classes
    mixed, soft = augmentation.mix(images, labels, num_classes, mixup, cutmix)
    assert mixed.shape == images.shape and mixed.dtype == torch.float32
    assert soft.shape == (batch, num_classes)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(batch))
