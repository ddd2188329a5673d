"""Each corruption spoils images more with each severity, as its strength says, and the same way for the same seed."""

import pytest
import torch

from pipeline.data.corruptions import CORRUPTIONS, GREY, SEVERITIES, corrupt


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(side, number=8):
    """Images with edges, shades and texture, neither black nor white."""
    texture = 30 * torch.rand(number, 3, side, side, generator=seeded(1))
    ramp = texture + torch.linspace(60, 150, side)
    ramp[:, 0, side // 4 : side // 2] += 50
    ramp[:, 1, :, side // 3 : side // 2] -= 50
    return ramp.to(torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_spoils_more_than_the_one_before(name):
    images = picture(48)
    before = images.clone()
    spoiled = [corrupt(images, name, severity, seeded()) for severity in range(1, SEVERITIES + 1)]
    assert torch.equal(images, before)
    assert torch.equal(spoiled[2], corrupt(images, name, 3, seeded()))
    damage = [(each.float() - images.float()).abs().mean().item() for each in spoiled]
    assert damage[-1] > 3
    if name == "pixelate":  # whether edges of the image meet edges of pixels matters more than one step
        damage = [damage[0], damage[-1]]
    assert damage == sorted(damage) and damage[0] < damage[-1]
    smallest = corrupt(picture(8), name, SEVERITIES, seeded())
    assert smallest.shape == (8, 3, 8, 8) and smallest.dtype == torch.uint8


def test_noise_occlusion_darkness_and_rotation_have_their_declared_strengths():
    grey = torch.full((40, 3, 32, 32), GREY, dtype=torch.uint8)
    noisy = corrupt(grey, "noise", 2, seeded()).float()
    assert noisy.std().item() == pytest.approx(0.12 * 255, rel=0.02) and noisy.mean().item() == pytest.approx(
        GREY, abs=1
    )
    white = torch.full((40, 3, 32, 32), 255, dtype=torch.uint8)
    covered = (corrupt(white, "occlusion", 4, seeded()) == GREY).float()
    assert covered.mean().item() == pytest.approx(0.3, abs=0.03)
    assert len(covered[:, 0].flatten(1).unique(dim=0)) > 20  # places of their own
    dark = corrupt(white, "darkness", 5, seeded())
    assert dark.float().mean().item() == pytest.approx(51, abs=1)
    turned = corrupt(white, "rotation", 5, seeded())
    assert (turned == GREY).any(dim=1).float().mean().item() > 0.1
    assert len(turned.flatten(1).unique(dim=0)) == 2  # some to the left, some to the right
