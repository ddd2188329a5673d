"""Parameters that the range test and the training share: data, network, starting weights, device, optimizer."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.params.base import NAMED_RUN, Like, Params, Switch, absolute, integer, on_or_off, trimmed
from pipeline.params.networks import OWN, ModelName

DatasetName = Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "folder"]
Resize = Literal["crop", "squash", "pad"]

FAST_LEAST_SIZE = 9  # px, of which the three poolings of `fast` leave one
ROOM = 0.15  # of image_size: what a random resized crop sees beyond what evaluation takes
# Parameters that only some values of one another allow, as RecipeParams and TrainParams check; the networks' first.
INTERDEPENDENT = (
    ("model", "image_size", "first_size", "patch_size", "dim", "heads", "crop_padding", "weights", "freeze"),
    ("weights", "freeze", "freeze_norms", "unfreeze_epoch", "epochs"),
    ("optimizer", "normalise_weights"),
)
RUN = "run:"
FILES = (".safetensors", ".pth")
OF_TORCHVISION = re.compile(r"default|([A-Za-z0-9_]+_Weights\.)?[A-Z][A-Z0-9_]*")
OF_TIMM = re.compile(r"default|[a-z0-9][a-z0-9_]*|hf-hub:[\w.-]+/[\w.-]+")  # or a tag of timm's


class DeviceParams(Params):
    device: Annotated[str, Like(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, mps, cuda or cuda:<n>")] = Field(
        "auto", description="auto, cpu, mps, cuda or cuda:<n>"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="auto is bf16 autocast if the hardware has it, else fp32; a CPU trains networks of depthwise "
        "convolutions and batch norms in fp32, which is faster",
    )


class SeedParams(Params):
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order, augmentation and noise; splits are fixed")


class DataParams(Params):
    dataset: DatasetName = Field("digits", description="a named set, or folder: class sub-folders under data_dir")
    data_dir: str = Field("data", min_length=1, description="where archives and folders of images lie")
    labels: str = Field(
        "", description="folder: a CSV file, as data_dir sees it, of path, label, split and group; empty: class folders"
    )
    image_size: int = Field(32, ge=8, le=1024, description="side of the square images (px)")
    resize: Resize = Field(
        "crop", description="of an image that is not square: its centre; all of it out of shape; all within grey"
    )
    valid_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of train kept for validation; 0 trains on all of it"
    )
    valid_as_test: Switch = Field(
        "off", description="folder with a validation part and no test part: on tests on it; off: on a fifth of train"
    )
    limit_train: int = Field(0, ge=0, description="use so many train images, stratified (0: all)")
    limit_test: int = Field(0, ge=0, description="use so many test images, stratified (0: all)")

    @property
    def margin(self) -> int:
        """px kept on every side of the images beside image_size: none, save for a recipe that crops."""
        return 0

    @field_validator("data_dir")
    @classmethod
    def data_dir_leads_there_from_everywhere(cls, data_dir: str, info: ValidationInfo) -> str:
        # Later steps have a named set from the cache: as long as nothing is said, nothing needs to be kept.
        is_unsaid = info.data.get("dataset") != "folder" and data_dir == cls.model_fields["data_dir"].default
        return data_dir if is_unsaid else absolute(data_dir)

    @model_validator(mode="after")
    def labels_are_of_a_folder(self) -> Self:
        if self.labels and self.dataset != "folder":
            raise ValueError(f"labels={self.labels} is of dataset=folder: {self.dataset} has labels of its own")
        if self.valid_as_test == "on" and self.dataset != "folder":
            raise ValueError(f"valid_as_test=on is of dataset=folder: {self.dataset} has a test part of its own")
        return self


class ModelParams(Params):
    model: ModelName = Field(
        "resnet18",
        description="one of ours: resnet18, resnet9, fast, ultimus, vit; or torchvision's by its name",
    )
    width: int = Field(64, ge=1, le=1024, description="resnet18, resnet9, fast: channels of the first stage")
    patch_size: int = Field(4, ge=1, description="vit: side of a patch (px); divides image_size")
    dim: int = Field(192, ge=1, le=8192, description="vit: embedding width")
    depth: int = Field(6, ge=1, le=100, description="vit: encoder blocks")
    heads: int = Field(3, ge=1, le=128, description="vit: attention heads; divides dim")

    def network_options(self) -> dict[str, int]:
        """The sizes that a network may take: width, patch_size, dim, depth, heads."""
        return {name: getattr(self, name) for name in ModelParams.model_fields if name not in ("model", "experiment")}


def _source(weights: str) -> str:
    scheme, separator, run_id = weights.partition(":")
    if trimmed(scheme + separator) == RUN:
        return RUN + NAMED_RUN.checked(trimmed(run_id))
    is_published = OF_TORCHVISION.fullmatch(weights) or OF_TIMM.fullmatch(weights)
    if weights != "none" and not (weights.endswith(FILES) or is_published):
        raise ValueError(
            "should be none, default, a name of torchvision's or timm's, hf-hub:<owner>/<name>, a .safetensors file or "
            "run:<run id>"
        )
    return weights


class FineTuningParams(Params):
    weights: Annotated[str, AfterValidator(_source)] = Field(
        "none",
        description="to start from: default, or a name of torchvision's or timm's; hf-hub:<owner>/<name>; "
        "a .safetensors (or .pth) file; run:<run id>",
    )
    freeze: Annotated[Literal["none", "backbone"] | Annotated[int, Field(ge=1, le=1000)], BeforeValidator(integer)] = (
        Field("none", description="what does not learn: backbone, all but the head; or its first so many stages")
    )
    freeze_norms: Switch = Field(
        "off", description="batch norms keep the statistics they start from; their scale and shift still learn"
    )
    unfreeze_epoch: int = Field(0, ge=0, description="epoch from which on what was frozen learns too (0: never)")
    lr_decay: float = Field(
        1.0, gt=0, le=1, description="rate of each stage over that of the one after it; the head has the full rate"
    )

    def misfit(self, model: str, own: tuple[str, ...]) -> str:
        """What does not fit together of these for network `model`, where `own` are this project's; else empty."""
        is_timm = model.startswith("timm/")
        if not is_timm and self.weights not in ("none", "default") and OF_TIMM.fullmatch(self.weights):
            return f"weights={self.weights} is a name of timm's, whose networks are model=timm/<name>, not {model}"
        if is_timm and self.weights != "default" and OF_TORCHVISION.fullmatch(self.weights):
            return f"weights={self.weights} is a name of torchvision's, and model={model} is timm's"
        if model in own and OF_TORCHVISION.fullmatch(self.weights):
            other = f"; torchvision's network is model=torchvision/{model}" if model == "resnet18" else ""
            return f"weights={self.weights}: torchvision has none for {model}, which is this project's own{other}"
        if self.freeze != "none" and self.weights == "none":
            return f"freeze={self.freeze}: what is frozen must have learned before, and weights=none"
        if self.freeze_norms == "on" and self.weights == "none":
            return "freeze_norms=on keeps the statistics of earlier training, and weights=none has no earlier training"
        if self.freeze == "none" and self.unfreeze_epoch:
            return f"unfreeze_epoch={self.unfreeze_epoch}: nothing is frozen (freeze=none)"
        if self.unfreeze_epoch == 1:
            return "unfreeze_epoch=1: training starts with epoch 1, so give 2 or more, or freeze=none"
        return ""


class FlipParams(Params):
    flip: Annotated[Literal["auto", "on", "off", "alternate"], BeforeValidator(on_or_off)] = Field(
        "auto",
        description="random mirroring; alternate: of each image in turns; auto is off for digits, mnist and svhn",
    )


class RecipeParams(DataParams, ModelParams, FineTuningParams, FlipParams, DeviceParams, SeedParams):
    """What range test and training must share for the one's suggestion to hold for the other."""

    batch_size: int = Field(128, ge=1, description="images per update")
    optimizer: Literal["sgd", "adamw", "muon"] = Field(
        "adamw", description="sgd is Nesterov's; muon hands what it does not take to adamw"
    )
    momentum: float = Field(
        0.9,
        ge=0,
        le=0.94,
        description="centre of the momentum cycle (beta1 of adamw alone): +0.05 at its ends, -0.05 at the peak",
    )
    weight_decay: float = Field(5e-4, ge=0, le=10, description="not applied to norms and biases")
    bias_lr: float = Field(1.0, gt=0, le=1000, description="rate of norms and biases, over that of all others")
    normalise_weights: Switch = Field(
        "off", description="muon: each hidden kernel kept at the norm sqrt(outputs), so that none outgrows its updates"
    )
    norm_momentum: float = Field(
        0.1, gt=0, le=1, description="share of the newest batch in the running statistics of batch norms"
    )
    class_weights: Literal["none", "balanced", "effective"] = Field(
        "none", description="in the loss of training: by inverse frequency of a class, or by its effective number"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup's Beta distribution (0: off)")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix's Beta distribution (0: off)")
    crop_padding: int = Field(4, ge=0, description="random crop after reflect padding (px; 0: off)")
    crop_area: float = Field(
        0.0, ge=0, le=1, description="least share of an image in a random resized crop, taken instead (0: off)"
    )
    augment: Literal["basic", "trivial", "rand"] = Field(
        "basic", description="crop, flip and cutout alone; TrivialAugmentWide or RandAugment after crop and flip"
    )
    cutout: int = Field(0, ge=0, description="side of the square erased from each image (px; 0: off)")

    @model_validator(mode="after")
    def sizes_fit(self) -> Self:
        size = self.image_size
        if self.model == "vit" and size % self.patch_size:
            divisors = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
            raise ValueError(f"patch_size={self.patch_size} does not divide image_size={size} (divisors: {divisors})")
        if self.model == "vit" and self.dim % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={self.dim}")
        if self.model == "fast" and size < FAST_LEAST_SIZE:
            raise ValueError(f"image_size={size} is too small for fast: use {FAST_LEAST_SIZE} px or more")
        if self.normalise_weights == "on" and self.optimizer != "muon":
            raise ValueError(f"normalise_weights=on is of optimizer=muon, not of {self.optimizer}")
        if misfit := self.misfit(self.model, OWN):
            raise ValueError(misfit)
        if self.crop_padding >= size:
            raise ValueError(f"crop_padding={self.crop_padding} must be below image_size={size}")
        return self

    @property
    def margin(self) -> int:
        """Px on every side of the stored images that random resized crops alone see: evaluation takes the centre."""
        # Of a whole image, squashed or padded, no border is cut off.
        return round(self.image_size * ROOM / 2) if self.crop_area and self.resize == "crop" else 0

    def identity(self) -> dict[str, Any]:
        """The parameters that a good rate depends on; seed, device and the place of the data are not among them."""
        apart = {*Params.model_fields, "seed", "device", "data_dir", "labels", "valid_as_test", "limit_test"}
        return {name: getattr(self, name) for name in RecipeParams.model_fields if name not in apart}
