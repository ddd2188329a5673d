"""Automatic augmentation: images stay images, few images share a draw, and the global random state decides."""

import pytest
import torch

from pipeline.data import augmentation


@pytest.mark.parametrize("name", augmentation.POLICIES)
def test_a_few_images_share_a_draw_and_the_random_state_decides(name: str) -> None:
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copies = image.expand(12 * augmentation.SHARING + 3, -1, -1, -1)
    torch.manual_seed(1)
    first = augmentation.apply(name, copies)
    assert first.shape == copies.shape and first.dtype == torch.uint8
    for few in first.split(augmentation.SHARING):
        assert (few == few[0]).all()
    assert len({few[0].numpy().tobytes() for few in first.split(augmentation.SHARING)}) > 4
    torch.manual_seed(1)
    assert torch.equal(augmentation.apply(name, copies), first)
    assert not torch.equal(augmentation.apply(name, copies), first)


@pytest.mark.parametrize(
    ("device", "num_images", "expected"),
    [("cpu", 512, 8), ("cuda", 512, 32), ("cuda", 500, 32), ("cuda", 16, 8), ("mps", 512, 32)],
)
def test_on_a_gpu_more_images_share_a_draw(device: str, num_images: int, expected: int) -> None:
    assert augmentation.num_sharing(num_images, torch.device(device)) == expected
