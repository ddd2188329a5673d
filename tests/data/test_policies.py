"""Automatic augmentation: images stay images, few share a draw, and the global random state decides."""

import pytest
import torch

from pipeline.data import policies


@pytest.mark.parametrize("name", policies.POLICIES)
def test_a_few_images_share_a_draw_and_the_random_state_decides(name: str) -> None:
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copies = image.expand(12 * policies.SHARING + 3, -1, -1, -1)
    torch.manual_seed(1)
    first = policies.apply(name, copies)
    assert first.shape == copies.shape and first.dtype == torch.uint8
    for few in first.split(policies.SHARING):
        assert (few == few[0]).all()
    assert len({few[0].numpy().tobytes() for few in first.split(policies.SHARING)}) > 4
    torch.manual_seed(1)
    assert torch.equal(policies.apply(name, copies), first)
    assert not torch.equal(policies.apply(name, copies), first)
