"""Batched augmentation on the training device: tensors in, tensors out, one draw per image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode, v2

# Images that share what is drawn, which torchvision draws once per call; others in each epoch, as batches are shuffled.
# On a core, images of 32 px come out five times as fast as one by one, of 224 px hardly faster.
SHARING = 8
MOST_CALLS = 16  # a batch, off the CPU: there a call takes as long for more images, and many wait for the device
POLICIES: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "trivial": v2.TrivialAugmentWide,  # one operation of random strength: arXiv:2103.10158
    "rand": v2.RandAugment,  # two of strength 9 of 31: arXiv:1909.13719
}


@dataclass(frozen=True)
class Place:
    """Where a batch stands in a training."""

    passes: float  # over the data before this batch, fractional
    mirrored: Tensor  # (B,) bool, which of its images an alternating flip mirrors


Augment = Callable[[Tensor, Tensor, Place, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """Train images as stored -> as the network takes them: cropped, mirrored, distorted, normalised, mixed."""

    image_size: int  # px
    mean: tuple[float, ...]  # per channel, in [0, 1] units
    std: tuple[float, ...]
    num_classes: int
    crop_area: float = 0.0  # least share of the image in a random resized crop (0: off)
    crop_padding: int = 0  # px of a random crop (0: off)
    flip: Literal["off", "random", "alternate"] = "off"
    policy: str = "basic"  # or one of POLICIES
    cutout: int = 0  # px (0: off)
    mixup: float = 0.0  # alpha (0: off)
    cutmix: float = 0.0  # alpha (0: off)
    first_size: int = 0  # px of the images of the first passes (0: image_size)
    first_passes: float = 0.0  # passes over the data made with images of first_size

    def __call__(self, images: Tensor, labels: Tensor, place: Place, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) uint8 -> (B, 3, size, size) float32, and labels (B,) or probabilities (B, C)."""
        if self.crop_area:
            images = random_resized_crop(images, self.image_size, self.crop_area, generator)
        elif self.crop_padding:
            images = random_crop(images, self.crop_padding, generator)
        if self.flip == "alternate":
            images = flip(images, place.mirrored)
        elif self.flip == "random":
            images = random_flip(images, generator)
        if self.policy != "basic":
            images = apply(self.policy, images)
        pixels = normalise(images, self.mean, self.std)
        if self.cutout:
            pixels = cutout(pixels, self.cutout, generator)
        if self.mixup or self.cutmix:
            pixels, labels = mix(pixels, labels, self.num_classes, self.mixup, self.cutmix)
        if self.first_size and place.passes < self.first_passes and self.first_size != pixels.shape[-1]:
            pixels = resize(pixels, self.first_size)
        return pixels, labels


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """A window of each image's own size at a random place in that image, reflect-padded by `padding` px.

    images: (B, 3, H, W), any dtype; the result has their shape and dtype.
    generator: on the images' device.
    Raises ValueError if `padding` is not smaller than the image, which cannot be reflected any further.
    """
    batch, channels, height, width = images.shape
    most = min(height, width) - 1
    if not 0 <= padding <= most:
        raise ValueError(f"crop_padding={padding} does not fit images of {height}x{width} px: use 0 to {most}")
    if not batch:
        return images
    down, across = torch.randint(-padding, padding + 1, (2, batch, 1, 1), generator=generator, device=images.device)
    # Reflection of rows is arithmetic on their numbers. Along a row it is done in memory: each row of the result is
    # then one stretch of that, copied whole, which takes a seventh of the time of copying pixels.
    left, right = images[..., 1 : padding + 1].flip(-1), images[..., width - 1 - padding : -1].flip(-1)
    stretches = torch.cat([left, images, right], dim=-1).flatten().unfold(0, width, 1)
    rows = _reflect(down + torch.arange(height, device=images.device), height)
    first_rows = height * torch.arange(batch * channels, device=images.device).view(batch, channels, 1)
    starts = (first_rows + rows) * (width + 2 * padding) + padding + across
    return stretches.index_select(0, starts.flatten()).view(images.shape)


def random_resized_crop(images: Tensor, size: int, least_area: float, generator: Generator) -> Tensor:
    """A random window of each image at `size` x `size` px, bilinear: (B, 3, size, size) uint8.

    It has a share of the image's area between `least_area`, in (0, 1], and 1, and 3/4 to 4/3 of its shape (Szegedy et
    al. 2014, arXiv:1409.4842). One that is then longer than the image is cut to it, which takes 13 % at most, and of
    shares above 3/4 alone.
    Without antialiasing, which scaling down little does not need. images: (B, 3, H, W) uint8.
    """
    draws = torch.rand((4, len(images)), generator=generator, device=images.device)
    area = least_area + (1 - least_area) * draws[0]
    stretch = (4 / 3) ** (draws[1] - 0.5)  # of the width; the height's is its inverse
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    # In [-1, 1] from border to border, as grids are: the middle of the window moves as far as the window leaves room.
    middle_x, middle_y = (1 - width) * (2 * draws[2] - 1), (1 - height) * (2 * draws[3] - 1)
    none = torch.zeros_like(width)
    across, down = torch.stack([width, none, middle_x], 1), torch.stack([none, height, middle_y], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), [len(images), 3, size, size], align_corners=False)
    window = F.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")
    return window.round_().to(torch.uint8)


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image mirrored left to right with probability 1/2. images: (B, 3, H, W), any dtype."""
    return flip(images, torch.rand(len(images), generator=generator, device=images.device) < 0.5)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """The images that `mirrored` (B,) bool says mirrored left to right. images: (B, 3, H, W), any dtype."""
    both = torch.stack([images, images.flip(-1)])  # of which whole images are copied: faster than choosing by pixel
    chosen = mirrored * len(images) + torch.arange(len(images), device=images.device)
    return both.flatten(end_dim=1).index_select(0, chosen)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) float at `size` x `size` px, bilinear with antialiasing, channels last."""
    resized = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)


def cutout(images: Tensor, size: int, generator: Generator) -> Tensor:
    """Each image with one square of `size` px set to 0, the mean of normalised pixels.

    images: (B, 3, H, W) float. The square's centre is uniform over the pixels; what sticks out is clipped
    (DeVries and Taylor, 2017, arXiv:1708.04552).
    """
    batch, _, height, width = images.shape
    rows = _inside(height, batch, size, generator)
    columns = _inside(width, batch, size, generator)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(images / 255 - mean) / std per channel: (B, 3, H, W) float32, channels last.

    images: (B, 3, H, W) uint8. mean, std: per channel, in [0, 1] units.
    """
    pixels = images.contiguous(memory_format=torch.channels_last).to(torch.float32, copy=True)
    rows = pixels.permute(0, 2, 3, 1).flatten(2)  # a view: arithmetic on whole rows is several times as fast
    rows.sub_(_per_row(mean, images.shape[3], images.device)).div_(_per_row(std, images.shape[3], images.device))
    return pixels


def mix(
    images: Tensor, labels: Tensor, num_classes: int, mixup_alpha: float, cutmix_alpha: float
) -> tuple[Tensor, Tensor]:
    """A batch blended with itself, and its soft labels (B, num_classes) that sum to 1.

    MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899), whichever has alpha > 0; one of the two at random
    per batch if both have. The share of each image is drawn from Beta(alpha, alpha), once per batch.
    images: (B, 3, H, W) float. labels: (B,) int64. Draws from torch's global random state.
    """
    blends = []
    if mixup_alpha:
        blends.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
    if cutmix_alpha:
        blends.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
    images, labels = v2.RandomChoice(blends)(images, labels)
    return images, labels


def _reflect(index: Tensor, size: int) -> Tensor:
    """`index` in (-size, 2 * size - 1) mirrored into [0, size) at the border pixels, not repeating them."""
    last = size - 1
    return last - (last - index.abs()).abs()


def _inside(length: int, batch: int, size: int, generator: Generator) -> Tensor:
    """(B, length) bool: the pixels of one axis that a randomly centred segment of `size` px covers."""
    start = torch.randint(length, (batch, 1), generator=generator, device=generator.device) - size // 2
    pixel = torch.arange(length, device=generator.device)
    return (start <= pixel) & (pixel < start + size)


@lru_cache(maxsize=16)
def _per_row(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """`values` of [0, 1] pixels as (W * C,) of a row of [0, 255] ones; kept, as a new copy makes the device wait."""
    return torch.tensor(values, device=device).mul(255).repeat(width)


def apply(name: str, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) uint8 under the policy `name`, one of `POLICIES`; what is turned in from outside is black.

    Draws from torch's global random state.
    """
    policy = POLICIES[name](interpolation=InterpolationMode.BILINEAR)
    return torch.cat([policy(few) for few in images.split(num_sharing(len(images), images.device))])


def num_sharing(num_images: int, device: torch.device) -> int:
    """How many images of a batch share what is drawn."""
    return SHARING if device.type == "cpu" else max(SHARING, -(-num_images // MOST_CALLS))
