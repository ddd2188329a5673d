"""Augments whole batches on the training device: tensors in, tensors out, one random draw per image."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode, v2

# Number of images that share one random draw, because torchvision draws once per call. Shuffling makes new groups in
# each epoch. On one core, this is five times as fast as single images at 32 px, and hardly faster at 224 px.
SHARING = 8
MOST_CALLS = 16  # per batch on a GPU, where a call takes no longer for more images, and many calls wait often
POLICIES: dict[str, Callable[..., Callable[[Tensor], Tensor]]] = {
    "trivial": v2.TrivialAugmentWide,  # one operation of random strength: arXiv:2103.10158
    "rand": v2.RandAugment,  # two of strength 9 of 31: arXiv:1909.13719
}


@dataclass(frozen=True)
class Share:
    """The rows of a batch that this process has.

    Random numbers are drawn for the whole batch, so that an image gets the same ones on any process.
    """

    start: int = 0
    end: int | None = None
    size: int | None = None  # images of the whole batch; None: this process has all of them

    @property
    def rows(self) -> slice:
        return slice(self.start, self.end)


WHOLE = Share()


@dataclass(frozen=True)
class Place:
    """The position of a batch in a training."""

    passes: float  # passes over the data before this batch, fractional
    mirrored: Tensor  # (B,) bool: the images that an alternating flip mirrors
    share: Share = WHOLE


Augment = Callable[[Tensor, Tensor, Place, Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Augmentation:
    """Turns stored train images into input of the network: crops, mirrors, distorts, normalises and mixes them."""

    image_size: int  # px
    mean: tuple[float, ...]  # per channel, in [0, 1] units
    std: tuple[float, ...]
    num_classes: int
    crop_area: float = 0.0  # smallest share of the image that a random resized crop shows (0: off)
    crop_padding: int = 0  # px of padding for a random crop (0: off)
    flip: Literal["off", "random", "alternate"] = "off"
    policy: str = "basic"  # or one of POLICIES
    cutout: int = 0  # side in px (0: off)
    mixup: float = 0.0  # alpha (0: off)
    cutmix: float = 0.0  # alpha (0: off)
    first_size: int = 0  # image size in px during the first passes (0: image_size)
    first_passes: float = 0.0  # number of passes over the data with images of first_size

    def __call__(self, images: Tensor, labels: Tensor, place: Place, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) uint8 -> (B, 3, size, size) float32, and labels (B,) or probabilities (B, C)."""
        if self.crop_area:
            images = random_resized_crop(images, self.image_size, self.crop_area, generator, place.share)
        elif self.crop_padding:
            images = random_crop(images, self.crop_padding, generator, place.share)
        if self.flip == "alternate":
            images = flip(images, place.mirrored)
        elif self.flip == "random":
            images = random_flip(images, generator, place.share)
        if self.policy != "basic":
            images = apply(self.policy, images)
        pixels = normalise(images, self.mean, self.std)
        if self.cutout:
            pixels = cutout(pixels, self.cutout, generator, place.share)
        if self.mixup or self.cutmix:
            pixels, labels = mix(pixels, labels, self.num_classes, self.mixup, self.cutmix)
        if self.first_size and place.passes < self.first_passes and self.first_size != pixels.shape[-1]:
            pixels = resize(pixels, self.first_size)
        return pixels, labels


def random_crop(images: Tensor, padding: int, generator: Generator, share: Share = WHOLE) -> Tensor:
    """Each image shifted at random by up to `padding` px; reflection fills the border.

    images: (B, 3, H, W), any dtype; the result has the same shape and dtype.
    generator: on the same device as the images.
    Raises ValueError if `padding` is not smaller than the image: there is nothing more to reflect.
    """
    batch, channels, height, width = images.shape
    most = min(height, width) - 1
    if not 0 <= padding <= most:
        raise ValueError(f"crop_padding={padding} does not fit images of {height}x{width} px: use 0 to {most}")
    if not batch:
        return images
    draws = (2, share.size or batch, 1, 1)
    shifts = torch.randint(-padding, padding + 1, draws, generator=generator, device=images.device)
    down, across = shifts[:, share.rows]
    # Rows are reflected by arithmetic on their indices.
    rows = _reflect(down + torch.arange(height, device=images.device), height)
    if images.device.type != "cpu":
        columns = _reflect(across + torch.arange(width, device=images.device), width)
        return _gathered(images, rows, columns)
    # Columns are reflected in memory: each row of the result is then one contiguous stretch. On a CPU, copying
    # stretches takes a third of the time of gathering pixels at 224 px. On MPS they take the memory of all windows.
    left, right = images[..., 1 : padding + 1].flip(-1), images[..., width - 1 - padding : -1].flip(-1)
    stretches = torch.cat([left, images, right], dim=-1).flatten().unfold(0, width, 1)
    first_rows = height * torch.arange(batch * channels).view(batch, channels, 1)
    starts = (first_rows + rows) * (width + 2 * padding) + padding + across
    return stretches.index_select(0, starts.flatten()).view(images.shape)


def random_resized_crop(
    images: Tensor, size: int, least_area: float, generator: Generator, share: Share = WHOLE
) -> Tensor:
    """A random window of each image, scaled to `size` x `size` px (bilinear): (B, 3, size, size) uint8.

    images: (B, 3, H, W) uint8. The window covers a share of the image's area between `least_area`, in (0, 1], and 1.
    Its aspect ratio is 3/4 to 4/3 of the image's (Szegedy et al. 2014, arXiv:1409.4842). A window that is longer than
    the image is cut. The cut takes at most 13 %, and happens only for shares above 3/4.
    There is no antialiasing: images that are scaled down only a little do not need it.
    """
    draws = torch.rand((4, share.size or len(images)), generator=generator, device=images.device)[:, share.rows]
    area = least_area + (1 - least_area) * draws[0]
    stretch = (4 / 3) ** (draws[1] - 0.5)  # for the width; the height takes the inverse
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    # Coordinates go from -1 to 1 between the borders, as in grids. The window moves as far as the image leaves room.
    middle_x, middle_y = (1 - width) * (2 * draws[2] - 1), (1 - height) * (2 * draws[3] - 1)
    zero = torch.zeros_like(width)
    across, down = torch.stack([width, zero, middle_x], 1), torch.stack([zero, height, middle_y], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), [len(images), 3, size, size], align_corners=False)
    window = F.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")
    return window.round_().to(torch.uint8)


def random_flip(images: Tensor, generator: Generator, share: Share = WHOLE) -> Tensor:
    """Mirrors each image left to right with probability 1/2. images: (B, 3, H, W), any dtype."""
    draws = torch.rand(share.size or len(images), generator=generator, device=images.device)
    return flip(images, draws[share.rows] < 0.5)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirrors left to right the images for which `mirrored` (B,) bool is true. images: (B, 3, H, W), any dtype."""
    both = torch.stack([images, images.flip(-1)])  # copying whole images is faster than choosing pixel by pixel
    chosen = mirrored * len(images) + torch.arange(len(images), device=images.device)
    return both.flatten(end_dim=1).index_select(0, chosen)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) float at `size` x `size` px, bilinear with antialiasing, channels last."""
    resized = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)


def cutout(images: Tensor, size: int, generator: Generator, share: Share = WHOLE) -> Tensor:
    """The images, each with one square of `size` px set to 0, the mean of normalised pixels.

    images: (B, 3, H, W) float. The centre of the square is uniform over the pixels. The square is clipped at the
    borders (DeVries and Taylor, 2017, arXiv:1708.04552).
    """
    batch, _, height, width = images.shape
    rows = _inside(height, share.size or batch, size, generator)[share.rows]
    columns = _inside(width, share.size or batch, size, generator)[share.rows]
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(images / 255 - mean) / std per channel: (B, 3, H, W) float32, channels last.

    images: (B, 3, H, W) uint8. mean, std: per channel, in [0, 1] units.
    """
    pixels = images.contiguous(memory_format=torch.channels_last).to(torch.float32, copy=True)
    rows = pixels.permute(0, 2, 3, 1).flatten(2)  # a view, because arithmetic on whole rows is several times as fast
    rows.sub_(_per_row(mean, images.shape[3], images.device)).div_(_per_row(std, images.shape[3], images.device))
    return pixels


def mix(
    images: Tensor, labels: Tensor, num_classes: int, mixup_alpha: float, cutmix_alpha: float
) -> tuple[Tensor, Tensor]:
    """A batch blended with itself, and its soft labels (B, num_classes) that sum to 1.

    images: (B, 3, H, W) float. labels: (B,) int64. Uses MixUp (arXiv:1710.09412) if `mixup_alpha` > 0, or CutMix
    (arXiv:1905.04899) if `cutmix_alpha` > 0. If both are, each batch uses one of the two at random.
    The share of each image is drawn once per batch from Beta(alpha, alpha), with torch's global random state.
    """
    blends = []
    if mixup_alpha:
        blends.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
    if cutmix_alpha:
        blends.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
    images, labels = v2.RandomChoice(blends)(images, labels)
    return images, labels


def _reflect(index: Tensor, size: int) -> Tensor:
    """`index` in (-size, 2 * size - 1), reflected into [0, size) without repeating the border pixels."""
    last = size - 1
    return last - (last - index.abs()).abs()


def _gathered(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows (B, 1, H) and then columns (B, 1, W) of each image (B, C, H, W), by their indices."""
    by_row = images.gather(2, rows[..., None].expand_as(images))
    return by_row.gather(3, columns[:, :, None].expand_as(images))


def _inside(length: int, batch: int, size: int, generator: Generator) -> Tensor:
    """(B, length) bool: the pixels of one axis that a randomly centred segment of `size` px covers."""
    start = torch.randint(length, (batch, 1), generator=generator, device=generator.device) - size // 2
    pixel = torch.arange(length, device=generator.device)
    return (start <= pixel) & (pixel < start + size)


@lru_cache(maxsize=16)
def _per_row(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """`values` in [0, 1] units as a row (W * C,) in [0, 255] units. Cached: a new copy would make the device wait."""
    return torch.tensor(values, device=device).mul(255).repeat(width)


def apply(name: str, images: Tensor) -> Tensor:
    """Applies the policy `name`, one of `POLICIES`, to images (B, 3, H, W) uint8. Pixels from outside are black.

    Draws from torch's global random state.
    """
    policy = POLICIES[name](interpolation=InterpolationMode.BILINEAR)
    return torch.cat([policy(few) for few in images.split(num_sharing(len(images), images.device))])


def num_sharing(num_images: int, device: torch.device) -> int:
    """How many images of a batch share one random draw."""
    return SHARING if device.type == "cpu" else max(SHARING, -(-num_images // MOST_CALLS))
