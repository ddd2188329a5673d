"""Every knob of every step: name, type, default, bounds, unit and meaning. The one truth, read by all others."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

DatasetName = Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn", "folder"]
ModelName = Literal["resnet18", "resnet9", "fast", "ultimus", "vit"]
CamMethod = Literal["gradcam", "gradcam++", "layercam", "hirescam", "eigencam", "scorecam"]
StepName = Literal["lr_range", "sweep", "train", "evaluate", "explain"]
Objective = Literal["valid/accuracy", "valid/loss", "flops", "train_seconds"]


class Declared(BaseModel):
    """Frozen, validated on construction; text such as `1e-3` is read as its type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Params(Declared):
    experiment: str = Field(
        "auto",
        description="a YAML file of parameters; none; auto: experiments/<dataset>_<model>.yaml where it exists",
    )


class DeviceParams(Params):
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:<n>")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto is bf16 autocast where the hardware has it, else fp32"
    )


class SeedParams(Params):
    seed: int = Field(0, ge=0, lt=2**31, description="of weights, order, augmentation and noise; splits are fixed")


class DataParams(Params):
    dataset: DatasetName = Field("digits", description="a named set, or folder: class sub-folders under data_dir")
    data_dir: str = Field("data", min_length=1, description="where archives and folders of images lie")
    image_size: int = Field(32, ge=8, le=1024, description="side of the square images (px)")
    valid_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of train kept for validation; 0 trains on all of it"
    )
    limit_train: int = Field(0, ge=0, description="use so many train images, stratified (0: all)")
    limit_test: int = Field(0, ge=0, description="use so many test images, stratified (0: all)")


class ModelParams(Params):
    model: ModelName = Field("resnet18", description="architecture")
    width: int = Field(64, ge=1, le=1024, description="resnet18, resnet9, fast: channels of the first stage")
    patch_size: int = Field(4, ge=1, description="vit: side of a patch (px); divides image_size")
    dim: int = Field(192, ge=1, le=8192, description="vit: embedding width")
    depth: int = Field(6, ge=1, le=100, description="vit: encoder blocks")
    heads: int = Field(3, ge=1, le=128, description="vit: attention heads; divides dim")


def _on_or_off(value: Any) -> Any:
    # YAML reads a bare on and off as true and false.
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Switch = Annotated[Literal["on", "off"], BeforeValidator(_on_or_off)]

# Parameters that only some values of one another allow, as RecipeParams checks.
FAST_LEAST_SIZE = 9  # px, of which the three poolings of `fast` leave one
SIZES = ("model", "image_size", "patch_size", "dim", "heads", "crop_padding")


class RecipeParams(DataParams, ModelParams, DeviceParams, SeedParams):
    """What range test and training must share for the one's suggestion to hold for the other."""

    batch_size: int = Field(128, ge=1, description="images per update")
    optimizer: Literal["sgd", "adamw", "muon"] = Field(
        "adamw", description="sgd is Nesterov's; muon hands what it does not take to adamw"
    )
    momentum: float = Field(
        0.9,
        ge=0,
        le=0.94,
        description="centre of the momentum cycle (beta1 for adamw): +0.05 at its ends, -0.05 at the peak",
    )
    weight_decay: float = Field(5e-4, ge=0, le=10, description="not applied to norms and biases")
    bias_lr: float = Field(1.0, gt=0, le=1000, description="rate of norms and biases, over that of all others")
    normalise_weights: Switch = Field(
        "off", description="muon: each hidden kernel kept at the norm sqrt(outputs), so that rates are relative changes"
    )
    norm_momentum: float = Field(
        0.1, gt=0, le=1, description="share of the newest batch in the running statistics of batch norms"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup's Beta distribution (0: off)")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix's Beta distribution (0: off)")
    crop_padding: int = Field(4, ge=0, description="random crop after reflect padding (px; 0: off)")
    flip: Annotated[Literal["auto", "on", "off", "alternate"], BeforeValidator(_on_or_off)] = Field(
        "auto",
        description="random mirroring; alternate: of each image in turns; auto is off for digits, mnist and svhn",
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
        if self.crop_padding >= size:
            raise ValueError(f"crop_padding={self.crop_padding} must be below image_size={size}")
        return self

    def recipe(self) -> dict[str, Any]:
        """The knobs a rate depends on; seed, device and data location are none of them."""
        apart = {*Params.model_fields, "seed", "device", "data_dir", "limit_test"}
        return {name: getattr(self, name) for name in RecipeParams.model_fields if name not in apart}


class StudyParams(Params):
    storage: str = Field(
        "auto", min_length=1, description="Optuna storage (URL); auto: optuna.db beside MLflow's own database"
    )


class TrainParams(RecipeParams, StudyParams):
    """What declares a OneCycle training."""

    from_study: str = Field("", description="study whose parameters and best values are taken, save those given here")
    epochs: int = Field(12, ge=1, le=100_000, description="passes over the train split")
    max_lr: Annotated[float, Field(gt=0, le=1000)] | Literal["auto"] = Field(
        "auto", description="peak rate; auto takes the suggestion of a range test of the same recipe"
    )
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of the updates spent rising to max_lr")
    div_factor: float = Field(25.0, ge=1, description="first rate = max_lr / div_factor")
    final_div_factor: float = Field(1e4, ge=1, description="last rate = first rate / final_div_factor")
    anneal: Literal["cos", "linear"] = Field("cos", description="shape of both halves of the cycle")
    first_size: int = Field(0, ge=0, le=1024, description="side of the images of the first updates (px; 0: image_size)")
    first_share: float = Field(0.5, gt=0, lt=1, description="share of the updates made with images of first_size")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="per update, of the averaged weights that are evaluated and kept (0: off)",
    )

    checkpoint_minutes: float = Field(
        10, gt=0, description="the state is kept after each epoch, and so often (minutes) within a long one"
    )
    keep_checkpoints: bool = Field(False, description="keep the last two states of a training that came to its end")

    @model_validator(mode="after")
    def first_size_fits(self) -> Self:
        least = FAST_LEAST_SIZE if self.model == "fast" else 8
        if self.first_size and not least <= self.first_size <= self.image_size:
            raise ValueError(f"first_size={self.first_size} must be {least} to image_size={self.image_size}")
        if self.first_size and self.model == "vit":
            raise ValueError("first_size: a vit takes images of one size only")
        return self


class ResumeParams(Params):
    resume: str = Field(
        "",
        pattern=r"^(latest|auto|[0-9a-f]{32})?$",
        description="go on with an interrupted run: its id; latest; auto, one of the same parameters or else a new run",
    )


class TrainStepParams(TrainParams, ResumeParams):
    """OneCycle training: weights, curves and a served model."""


class LrRangeParams(RecipeParams):
    """LR range test: which peak rate the recipe takes."""

    lr_min: float = Field(1e-5, gt=0, description="first rate of the ladder")
    lr_max: float = Field(10.0, gt=0, le=1000, description="last rate of the ladder")
    num_steps: int = Field(100, ge=20, le=10_000, description="updates per ladder")
    num_repeats: Annotated[int, Field(ge=1, le=20)] | Literal["auto"] = Field(
        "auto", description="ladders, each with its own seed; the median is suggested; auto: 3, of large sets 1"
    )

    @model_validator(mode="after")
    def ladder_rises(self) -> Self:
        if self.lr_min >= self.lr_max:
            raise ValueError(f"lr_min={self.lr_min:g} must be below lr_max={self.lr_max:g}")
        return self


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError('as text, expected JSON such as {"patch_size": [2, 4]}') from None


def _comma_separated(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def as_text(value: Any) -> str:
    """A parameter's value as a flag takes it, and as MLflow keeps it."""
    if isinstance(value, dict):
        return json.dumps(value)
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


class SweepParams(TrainParams):
    """Optuna study over training parameters: a trial a training, judged on the validation split."""

    study_name: str = Field("auto", pattern=r"^[\w .-]{1,100}$", description="auto is the experiment file's name")
    space: Annotated[dict[str, Any], BeforeValidator(_json)] = Field(
        {}, description="parameter -> [choices] or {low, high, log, step}, either with `when`; in the experiment file"
    )
    num_trials: int = Field(12, ge=1, le=100_000, description="trials of the study in all, finished ones included")
    num_workers: int = Field(1, ge=1, le=256, description="processes that run trials")
    sampler: Literal["tpe", "random", "grid", "gp", "nsgaii"] = Field("tpe", description="what suggests the values")
    pruner: Literal["auto", "hyperband", "median", "none"] = Field(
        "auto", description="what ends poor trials early; auto is hyperband where trials can be compared, else none"
    )
    objectives: Annotated[tuple[Objective, ...], BeforeValidator(_comma_separated)] = Field(
        ("valid/accuracy",), min_length=1, max_length=2, description="what to optimise; two give a Pareto front"
    )
    lr_range_first: bool = Field(
        False, description="a range test per patch_size narrows max_lr, and its suggestions are tried first"
    )

    @model_validator(mode="after")
    def objectives_are_of_validation(self) -> Self:
        first, *others = self.objectives
        if not first.startswith("valid/") or first in others:
            raise ValueError("objectives: valid/accuracy or valid/loss first, then at most one other")
        return self


class TrainedParams(DeviceParams):
    """A training run to look at, on the data it was trained on."""

    run_id: str = Field(
        "latest",
        pattern=r"^(latest|[0-9a-f]{32})$",
        description="training run; latest is the newest FINISHED one",
    )
    weights: Literal["best", "last"] = Field("best", description="best epoch by validation, or the last")
    data_dir: str = Field("", description="where the images lie now; empty: where the training found them")


class EvaluateParams(TrainedParams):
    """Accuracy, confusion and calibration of a trained model on the test split."""

    views: Annotated[Literal[1, 2, 6], BeforeValidator(_integer)] = Field(
        1, description="of each image, averaged, beside the plain result: 2 with its mirror image, 6 shifted too"
    )
    top_k: int = Field(5, ge=2, le=100, description="k of the top-k accuracy")


class ExplainParams(TrainedParams, SeedParams):
    """Where a trained model looks, for its errors and its hits."""

    method: CamMethod = Field("gradcam", description="class activation map")
    num_images: int = Field(8, ge=1, le=64, description="misclassified images explained, and as many correct ones")


class MainParams(SweepParams, LrRangeParams, EvaluateParams, ExplainParams, ResumeParams):
    """A whole experiment: the steps above in order, under one parent run."""

    steps: Annotated[tuple[StepName, ...], BeforeValidator(_comma_separated)] = Field(
        ("lr_range", "train", "evaluate", "explain"), min_length=1, description="steps to run, in order"
    )


class SyncParams(Declared):
    """Sends to MLflow what runs could not send while their tracking store was away."""


class VerifyResumeParams(TrainParams):
    """Proves that an interrupted training ends as one that was not: kills it, resumes it, compares all it left."""

    num_kills: int = Field(5, ge=1, le=10_000, description="times the training is killed, at random moments")


STEPS: dict[str, type[Params]] = {
    "main": MainParams,
    "lr_range": LrRangeParams,
    "sweep": SweepParams,
    "train": TrainStepParams,
    "evaluate": EvaluateParams,
    "explain": ExplainParams,
}
# What is no step of an experiment, and no entry point of the MLflow Project.
TOOLS: dict[str, type[Declared]] = {"sync": SyncParams, "verify_resume": VerifyResumeParams}
COMMANDS: dict[str, type[Declared]] = {**STEPS, **TOOLS}
