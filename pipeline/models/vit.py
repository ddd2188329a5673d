"""Vision transformer for small images (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import math

from torch import Tensor
from torchvision.models import VisionTransformer

MLP_RATIO = 4  # hidden width of the MLPs divided by `dim`, as in ViT and DeiT-Ti (arXiv:2012.12877; 192 wide, 3 heads)


class ViT(VisionTransformer):
    """Torchvision's ViT, with `depth` blocks of width `dim`; 2,693,578 parameters for 10 classes by default.

    Images (B, 3, image_size, image_size) to logits (B, num_classes). The head starts at zero, so all logits are zero
    before training. `patch_size` is in px. Raises ValueError unless `patch_size` divides `image_size` and `heads`
    divides `dim`.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        patch_size: int = 4,
        dim: int = 192,
        depth: int = 6,
        heads: int = 3,
    ) -> None:
        if image_size % patch_size:
            divisors = ", ".join(str(size) for size in range(1, image_size + 1) if image_size % size == 0)
            raise ValueError(f"patch_size={patch_size} does not divide image_size={image_size} (divisors: {divisors})")
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        super().__init__(
            image_size=image_size,
            patch_size=patch_size,
            num_layers=depth,
            num_heads=heads,
            hidden_dim=dim,
            mlp_dim=MLP_RATIO * dim,
            num_classes=num_classes,
        )


def tokens_to_grid(tokens: Tensor) -> Tensor:
    """Arranges the image tokens of (B, 1 + side², C), class token first, as their patches: (B, C, side, side)."""
    side = math.isqrt(tokens.shape[1] - 1)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
