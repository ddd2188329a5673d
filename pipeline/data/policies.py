"""RandAugment and TrivialAugmentWide over a batch: torchvision's own, a few images at a time."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

# Images that share what is drawn, which torchvision draws once per call; others in each epoch, as batches are shuffled.
# On a core, images of 32 px come out five times as fast as one by one, of 224 px hardly faster.
SHARING = 8
MOST_CALLS = 16  # a batch, off the CPU: there a call takes as long for more images, and many wait for the device
POLICIES: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "trivial": v2.TrivialAugmentWide,  # one operation of random strength: arXiv:2103.10158
    "rand": v2.RandAugment,  # two of strength 9 of 31: arXiv:1909.13719
}


def apply(name: str, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) uint8 under the policy `name`, one of `POLICIES`; what is turned in from outside is black.

    Draws from torch's global random state.
    """
    policy = POLICIES[name](interpolation=InterpolationMode.BILINEAR)
    return torch.cat([policy(few) for few in images.split(num_sharing(len(images), images.device))])


def num_sharing(num_images: int, device: torch.device) -> int:
    """How many images of a batch share what is drawn."""
    return SHARING if device.type == "cpu" else max(SHARING, -(-num_images // MOST_CALLS))
