"""Networks by name, with their sizes: this project's own, torchvision's classification models, and timm's."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.params.base import Params, nearest

OWN = ("resnet18", "resnet9", "fast", "ultimus", "vit")  # for small images
# A copy of torchvision's own names, so that checking parameters does not import torchvision. A test compares them.
# Two networks are called resnet18: with the prefix, it is torchvision's.
TORCHVISION = (
    "alexnet",
    *("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    *("densenet121", "densenet161", "densenet169", "densenet201"),
    *(f"efficientnet_b{size}" for size in range(8)),
    *("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
    *("googlenet", "inception_v3", "maxvit_t"),
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *(f"regnet_x_{flops}" for flops in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{flops}" for flops in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")),
    *("torchvision/resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    *("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
    *("squeezenet1_0", "squeezenet1_1"),
    *("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b"),
    *("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
    *("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"),
)
NETWORKS = (*OWN, *TORCHVISION)
TIMM_NETWORK = re.compile(r"timm/[a-z0-9][a-z0-9_]*")  # only a form: importing timm's list of names takes seconds


def known(name: str) -> str:
    """`name`, if a network has it. Raises ValueError with the nearest name for any other."""
    if name not in NETWORKS and not TIMM_NETWORK.fullmatch(name):
        others = f"own: {', '.join(OWN)}; or a classification model of torchvision by its name; or timm/<name>"
        raise ValueError(f"unknown model{nearest(name, NETWORKS)} ({others})")
    return name


ModelName = Annotated[str, AfterValidator(known)]


class ModelParams(Params):
    model: ModelName = Field(
        "resnet18",
        description="resnet18, resnet9, fast, ultimus or vit (for small images), a name of torchvision, or timm/<name> "
        "(the command `models` lists them)",
    )
    width: int = Field(64, ge=1, le=1024, description="resnet18, resnet9, fast: channels of the first stage")
    patch_size: int = Field(4, ge=1, description="vit: side of a patch (px); must divide image_size")
    dim: int = Field(192, ge=1, le=8192, description="vit: embedding width")
    depth: int = Field(6, ge=1, le=100, description="vit: encoder blocks")
    heads: int = Field(3, ge=1, le=128, description="vit: attention heads; must divide dim")

    def network_options(self) -> dict[str, int]:
        """The sizes of a network: width, patch_size, dim, depth, heads."""
        return {name: getattr(self, name) for name in ModelParams.model_fields if name not in ("model", "experiment")}
