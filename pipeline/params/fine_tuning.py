"""What a training starts from, and which parts of the network learn, when and how fast."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.params.declared import Params, integer

RUN = "run:"
FILES = (".safetensors", ".pth")
OF_TORCHVISION = re.compile(r"default|([A-Za-z0-9_]+_Weights\.)?[A-Z][A-Z0-9_]*")


def _source(weights: str) -> str:
    is_run = re.fullmatch(rf"{RUN}[0-9a-f]{{32}}", weights)
    if weights != "none" and not (is_run or weights.endswith(FILES) or OF_TORCHVISION.fullmatch(weights)):
        raise ValueError("should be none, default, a name torchvision has, a .safetensors file or run:<run id>")
    return weights


class FineTuningParams(Params):
    weights: Annotated[str, AfterValidator(_source)] = Field(
        "none",
        description="to start from: default or a name of torchvision's; a .safetensors (or .pth) file; run:<run id>",
    )
    freeze: Annotated[Literal["none", "backbone"] | Annotated[int, Field(ge=1, le=1000)], BeforeValidator(integer)] = (
        Field("none", description="what does not learn: backbone, all but the head; or its first so many stages")
    )
    unfreeze_epoch: int = Field(0, ge=0, description="epoch from which on what was frozen learns too (0: never)")
    lr_decay: float = Field(
        1.0, gt=0, le=1, description="rate of each stage over that of the one after it; the head has the full rate"
    )

    def misfit(self, model: str, own: tuple[str, ...]) -> str:
        """What does not fit together of these for network `model`, where `own` are this project's; else empty."""
        if model in own and OF_TORCHVISION.fullmatch(self.weights):
            other = f"; torchvision's network is model=torchvision/{model}" if model == "resnet18" else ""
            return f"weights={self.weights}: torchvision has none for {model}, which is this project's own{other}"
        if self.freeze != "none" and self.weights == "none":
            return f"freeze={self.freeze}: what is frozen must have learned before, and weights=none"
        if self.freeze == "none" and self.unfreeze_epoch:
            return f"unfreeze_epoch={self.unfreeze_epoch}: nothing is frozen (freeze=none)"
        if self.unfreeze_epoch == 1:
            return "unfreeze_epoch=1: training starts with epoch 1, so give 2 or more, or freeze=none"
        return ""
