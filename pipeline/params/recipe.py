"""Parameters that range test and training share: data, network, starting weights, device, optimizer."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from pipeline.params.base import (
    NAMED_RUN,
    DeviceParams,
    FlipParams,
    Params,
    PerChannel,
    SeedParams,
    Switch,
    absolute,
    integer,
    trimmed,
)
from pipeline.params.networks import OWN, ModelParams
from pipeline.text import shown

DatasetName = Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "folder"]
Resize = Literal["crop", "squash", "pad"]

FAST_LEAST_SIZE = 9  # px; the three pooling layers of `fast` reduce it to one
CROP_ROOM = 0.15  # share of image_size that a random resized crop sees in addition to the image of an evaluation
# Groups of parameters that restrict each other, as RecipeParams and TrainParams check. The first is the network's.
INTERDEPENDENT = (
    ("model", "image_size", "first_size", "patch_size", "dim", "heads", "crop_padding", "weights", "freeze"),
    ("weights", "freeze", "freeze_norms", "unfreeze_epoch", "epochs"),
    ("optimizer", "normalise_weights"),
    ("batch_size", "accumulate"),
)
RUN = "run:"
FILES = (".safetensors", ".pth")
TORCHVISION_WEIGHTS = re.compile(r"default|([A-Za-z0-9_]+_Weights\.)?[A-Z][A-Z0-9_]*")
TIMM_WEIGHTS = re.compile(r"default|[a-z0-9][a-z0-9_]*|hf-hub:[\w.-]+/[\w.-]+")  # or a tag of timm


class DataParams(Params):
    dataset: DatasetName = Field("digits", description="a named set; folder: your images in data_dir (other defaults)")
    data_dir: str = Field("data", min_length=1, description="the folder with downloaded data sets, or with your images")
    labels: str = Field(
        "",
        description="for dataset=folder: a CSV file, relative to data_dir, with path, label, split, group and exclude, "
        "or Label Studio's JSON export; empty: the images are in one folder per class",
    )
    image_size: int = Field(32, ge=8, le=1024, description="side of the square images (px)")
    resize: Resize = Field(
        "crop", description="how an image becomes square: crop to its centre, squash (distort), pad (with grey)"
    )
    valid_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the train images for validation; 0: no validation"
    )
    valid_as_test: Switch = Field(
        "off",
        description="for a folder with a validation part but no test part; on: that part is the test split; off: a "
        "fifth of train is",
    )
    folds: int = Field(0, ge=0, le=100, description="number of folds of a cross-validation (0: none); main runs all")
    fold: int = Field(0, ge=0, description="the fold that is the test split, 1 to folds; for main, 0 means all of them")
    limit_train: int = Field(0, ge=0, description="number of train images to use, stratified (0: all)")
    limit_test: int = Field(0, ge=0, description="number of test images to use, stratified (0: all)")
    limit_seed: int = Field(0, ge=0, lt=2**31, description="seed that chooses the images that limit_train keeps")

    @property
    def set_name(self) -> str:
        """The name of the image set: the folder's name, or the named set's."""
        return (self.dataset == "folder" and shown(Path(self.data_dir).name)) or self.dataset

    @property
    def margin(self) -> int:
        """px stored on each side of the images in addition to image_size: 0, except for a recipe that crops."""
        return 0

    @field_validator("data_dir")
    @classmethod
    def data_dir_is_absolute(cls, data_dir: str, info: ValidationInfo) -> str:
        # The default for a named set stays relative, because later steps read the set from the cache.
        is_default = info.data.get("dataset") != "folder" and data_dir == cls.model_fields["data_dir"].default
        return data_dir if is_default else absolute(data_dir)

    @model_validator(mode="after")
    def labels_need_a_folder(self) -> Self:
        if self.labels and self.dataset != "folder":
            raise ValueError(f"labels={self.labels} needs dataset=folder: {self.dataset} has its own labels")
        if self.valid_as_test == "on" and self.dataset != "folder":
            raise ValueError(f"valid_as_test=on needs dataset=folder: {self.dataset} has its own test part")
        return self

    @model_validator(mode="after")
    def a_fold_is_one_of_the_folds(self) -> Self:
        if self.folds == 1:
            raise ValueError("folds=1: give at least 2 folds, or 0 for none")
        if self.fold > self.folds:
            raise ValueError(f"fold={self.fold} must be at most folds={self.folds}")
        if self.folds and self.valid_as_test == "on":
            raise ValueError(f"folds={self.folds} and valid_as_test=on: each fold is a test split, so leave one out")
        return self


def _source(weights: str) -> str:
    scheme, separator, run_id = weights.partition(":")
    if trimmed(scheme + separator) == RUN:
        return RUN + NAMED_RUN.checked(trimmed(run_id))
    is_published = TORCHVISION_WEIGHTS.fullmatch(weights) or TIMM_WEIGHTS.fullmatch(weights)
    if weights != "none" and not (weights.endswith(FILES) or is_published):
        raise ValueError(
            "should be none, default, a name of weights in torchvision or timm, hf-hub:<owner>/<name>, a .safetensors "
            "file or run:<run id>"
        )
    return weights


class FineTuningParams(Params):
    weights: Annotated[str, AfterValidator(_source)] = Field(
        "none",
        description="starting weights: none; default, or a name of weights in torchvision or timm; "
        "hf-hub:<owner>/<name>; a .safetensors (or .pth) file; run:<run id>",
    )
    freeze: Annotated[Literal["none", "backbone"] | Annotated[int, Field(ge=1, le=1000)], BeforeValidator(integer)] = (
        Field("none", description="stages that do not learn: backbone (all but the head), or a number of first stages")
    )
    freeze_norms: Switch = Field(
        "off", description="batch norms keep the statistics of the starting weights; scale and shift still learn"
    )
    unfreeze_epoch: int = Field(0, ge=0, description="epoch from which the frozen stages learn too (0: never)")
    lr_decay: float = Field(
        1.0, gt=0, le=1, description="rate of each stage relative to the next stage; the head has the full rate"
    )

    def misfit(self, model: str, own: tuple[str, ...]) -> str:
        """Why these parameters contradict each other for network `model`; empty if they do not.

        own: the names of this project's networks.
        """
        is_timm = model.startswith("timm/")
        if not is_timm and self.weights not in ("none", "default") and TIMM_WEIGHTS.fullmatch(self.weights):
            return f"weights={self.weights} are weights of timm, and need model=timm/<name>, not {model}"
        if is_timm and self.weights != "default" and TORCHVISION_WEIGHTS.fullmatch(self.weights):
            return f"weights={self.weights} are weights of torchvision, but model={model} is from timm"
        if model in own and TORCHVISION_WEIGHTS.fullmatch(self.weights):
            other = f"; torchvision's network is model=torchvision/{model}" if model == "resnet18" else ""
            return f"weights={self.weights}: torchvision has no weights for {model}, which is this project's own{other}"
        if self.freeze != "none" and self.weights == "none":
            return f"freeze={self.freeze}: frozen stages need pretrained weights, but weights=none"
        if self.freeze_norms == "on" and self.weights == "none":
            return "freeze_norms=on keeps the statistics of pretrained weights, but weights=none"
        if self.freeze == "none" and self.unfreeze_epoch:
            return f"unfreeze_epoch={self.unfreeze_epoch}: nothing is frozen (freeze=none)"
        if self.unfreeze_epoch == 1:
            return "unfreeze_epoch=1: training starts with epoch 1, so give 2 or more, or freeze=none"
        return ""


class NormalisationParams(Params):
    mean: PerChannel = Field(
        "auto",
        description="mean of red, green and blue (0 to 1); auto: what the weights need, or else the mean of the images",
    )
    std: PerChannel = Field("auto", description="standard deviation of red, green and blue (0 to 1); auto: as for mean")

    @field_validator("std")
    @classmethod
    def std_divides(cls, std: Any) -> Any:
        if std != "auto" and 0 in std:
            raise ValueError("must be above 0")
        return std


class RecipeParams(
    DataParams, ModelParams, FineTuningParams, NormalisationParams, FlipParams, DeviceParams, SeedParams
):
    """The parameters that range test and training must share, so that a suggested rate is valid for the training."""

    batch_size: int = Field(
        128, ge=1, description="images per update; a last batch of less than an eighth of it joins the batch before"
    )
    accumulate: int = Field(
        1, ge=1, le=1024, description="parts that a batch is split into, to save memory; batch norms see one at a time"
    )
    clip_grad_norm: float = Field(0.0, ge=0, description="largest norm of the gradient of an update (0: no limit)")
    optimizer: Literal["sgd", "adamw", "muon"] = Field(
        "adamw", description="sgd: with Nesterov momentum; muon: for hidden kernels, with adamw for the other weights"
    )
    momentum: float = Field(
        0.9,
        ge=0,
        le=0.94,
        description="centre of the momentum cycle (for adamw, beta1): +0.05 at its ends, -0.05 at the peak",
    )
    weight_decay: float = Field(5e-4, ge=0, le=10, description="weight decay; not for norms and biases")
    bias_lr: float = Field(1.0, gt=0, le=1000, description="rate of norms and biases, relative to all other weights")
    normalise_weights: Switch = Field(
        "off", description="muon: keep each hidden kernel at norm sqrt(outputs), so that it never outgrows its updates"
    )
    norm_momentum: float = Field(
        0.1, gt=0, le=1, description="weight of the newest batch in the running statistics of batch norms"
    )
    sync_norms: Switch = Field(
        "on", description="batch norms on several devices; on: see the whole batch; off: see the share of their device"
    )
    class_weights: Literal["none", "balanced", "effective"] = Field(
        "none", description="class weights in the train loss: by inverse frequency (balanced), or by effective number"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that is spread over all classes")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup's Beta distribution (0: off)")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix's Beta distribution (0: off)")
    crop_padding: int = Field(4, ge=0, description="random crop after reflect padding (px; 0: off)")
    crop_area: float = Field(
        0.0, ge=0, le=1, description="random resized crop in place of crop_padding: least share of the image (0: off)"
    )
    augment: Literal["basic", "trivial", "rand"] = Field(
        "basic", description="basic: crop, flip and cutout; trivial, rand: also TrivialAugmentWide or RandAugment"
    )
    cutout: int = Field(0, ge=0, description="side of the square that is erased from each image (px; 0: off)")

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
            raise ValueError(f"normalise_weights=on needs optimizer=muon, not {self.optimizer}")
        if misfit := self.misfit(self.model, OWN):
            raise ValueError(misfit)
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}")
        if self.crop_padding >= size:
            raise ValueError(f"crop_padding={self.crop_padding} must be below image_size={size}")
        return self

    @property
    def margin(self) -> int:
        """px on each side of the stored images that only random resized crops see; evaluation uses the centre."""
        # A squashed or padded image is complete, so there is nothing beyond it.
        return round(self.image_size * CROP_ROOM / 2) if self.crop_area and self.resize == "crop" else 0

    def identity(self) -> dict[str, Any]:
        """The parameters that a good rate depends on; seed, device and the paths of the data do not count."""
        of_images = ("data_dir", "labels", "valid_as_test", "limit_test", "limit_seed", "folds", "fold")
        apart = {*Params.model_fields, "seed", "device", *of_images}
        return self.model_dump(mode="json", include=RecipeParams.model_fields.keys() - apart)
