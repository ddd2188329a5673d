"""Parameters of a training, of the range test before it, and of a sweep over trainings."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_serializer, field_validator, model_validator

from pipeline.params.base import (
    ID_START,
    NAME_CHARACTERS,
    RUN_ID_WORDS,
    CalibrationParams,
    Like,
    Params,
    Switch,
    check_database_url,
    comma_separated,
    from_json,
    on_or_off,
    trimmed,
)
from pipeline.params.recipe import FAST_LEAST_SIZE, RecipeParams
from pipeline.text import without_passwords

LrRule = Literal["cycles", "steepest", "valley", "minimum/10"]
Objective = Literal[
    "valid/accuracy", "valid/balanced_accuracy", "valid/macro_f1", "valid/loss", "flops", "train_seconds"
]
Selection = Literal["accuracy", "balanced_accuracy", "macro_f1", "loss"]


class StudyParams(Params):
    storage: str = Field(
        "auto",
        min_length=1,
        description="address (URL) of the studies' database; auto: optuna.db beside MLflow's SQLite file, else in the "
        "working directory",
    )

    @field_validator("storage")
    @classmethod
    def storage_is_a_url(cls, storage: str) -> str:
        if storage != "auto":
            check_database_url(storage)
        return storage

    @field_serializer("storage")
    def storage_without_password(self, storage: str) -> str:
        # Dumped parameters are stored with runs and shown in reports, so the password must not be in them.
        return without_passwords(storage)


class TrainParams(RecipeParams, StudyParams, CalibrationParams):
    """The parameters of a OneCycle training."""

    from_study: str = Field("", description="use the parameters and best values of this study, unless given here")
    epochs: int = Field(12, ge=1, le=100_000, description="passes over the train split")
    max_lr: Annotated[float, Field(gt=0, le=1000)] | Literal["auto"] = Field(
        "auto", description="peak learning rate; auto: the suggestion of a range test with the same recipe"
    )
    lr_rule: LrRule = Field(
        "cycles",
        description="how a range test finds the rate; cycles: by short OneCycle trainings; steepest, valley, "
        "minimum/10: by a rule on ladders of rates, a cheap first look",
    )
    pct_start: float = Field(0.3, gt=0, lt=1, description="share of the updates in which the rate rises to max_lr")
    div_factor: float = Field(25.0, ge=1, description="first rate = max_lr / div_factor")
    final_div_factor: float = Field(1e4, ge=1, description="last rate = first rate / final_div_factor")
    anneal: Literal["cos", "linear"] = Field("cos", description="shape of the rise and of the fall of the rate")
    first_size: int = Field(0, ge=0, le=1024, description="side of the images in the first updates (px; 0: image_size)")
    first_share: float = Field(0.5, gt=0, lt=1, description="share of the updates with images of first_size")
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay per update of the average of weights that is evaluated and stored (0: off)",
    )

    select_by: Selection = Field(
        "accuracy",
        description="the measure on the validation images by which the best epoch is chosen (fewer than 100 images: "
        "the last epoch is kept unless its accuracy is clearly lower); also chooses between probe and training",
    )
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)] = Field(
        "auto", description="torch.compile, for speed; auto: on for long trainings on CUDA, if possible"
    )
    checkpoint_activations: Switch = Field(
        "off", description="on: save memory; the backward pass computes activations again, which takes longer"
    )
    checkpoint_minutes: float = Field(
        10,
        gt=0,
        description="minutes between saved states within an epoch; the first and the last epoch also end with one, "
        "and so does any other if the last state is older than 30 s",
    )
    keep_checkpoints: bool = Field(False, description="keep the last two states after the training has finished")
    watch_images: int = Field(
        0,
        ge=0,
        le=64,
        description="number of validation images with maps after each epoch (0: none); not in a sweep",
    )

    def cycle_shape(self) -> dict[str, Any]:
        """The parameters that determine the length and the shape of the cycle, by name."""
        names = ("epochs", "pct_start", "div_factor", "final_div_factor", "anneal", "first_size", "first_share")
        return {name: getattr(self, name) for name in names}

    @model_validator(mode="after")
    def first_size_fits(self) -> Self:
        least = FAST_LEAST_SIZE if self.model == "fast" else 8
        if self.first_size and not least <= self.first_size <= self.image_size:
            raise ValueError(f"first_size={self.first_size} must be {least} to image_size={self.image_size}")
        if self.first_size and self.model == "vit":
            raise ValueError("first_size: a vit takes images of only one size")
        return self

    @model_validator(mode="after")
    def unfreezing_is_within_the_training(self) -> Self:
        if self.unfreeze_epoch > self.epochs:
            raise ValueError(f"unfreeze_epoch={self.unfreeze_epoch} must be at most epochs={self.epochs} (0: never)")
        return self


class ResumeParams(Params):
    """Which interrupted run a step continues."""

    resume: Annotated[
        str, BeforeValidator(trimmed), Like(f"(latest|auto|{ID_START})?", f"latest, auto, or {RUN_ID_WORDS}")
    ] = Field(
        "",
        description="continue an interrupted run: its id; latest; auto: one with the same parameters, else a new run",
    )


class SeriesParams(ResumeParams):
    """How often a training or an experiment runs."""

    num_seeds: int = Field(1, ge=1, le=100, description="number of trainings (seed, seed + 1, ...) in one parent run")


class LadderParams(Params):
    """The ladder of rates that a range test climbs, unless lr_rule=cycles."""

    ladder_min_lr: float = Field(1e-5, gt=0, description="first rate of a ladder (not for lr_rule=cycles)")
    ladder_max_lr: float = Field(10.0, gt=0, le=1000, description="last rate of a ladder (not for lr_rule=cycles)")
    ladder_steps: int = Field(100, ge=20, le=10_000, description="updates of a ladder (not for lr_rule=cycles)")
    num_repeats: Annotated[int, Field(ge=1, le=20)] | Literal["auto"] = Field(
        "auto",
        description="number of ladders with different seeds, whose median is suggested (not for lr_rule=cycles); auto: "
        "3, for large sets 1",
    )

    @model_validator(mode="after")
    def ladder_rises(self) -> Self:
        if self.ladder_min_lr >= self.ladder_max_lr:
            raise ValueError(f"ladder_min_lr={self.ladder_min_lr:g} must be below ladder_max_lr={self.ladder_max_lr:g}")
        return self

    @classmethod
    def own(cls) -> list[str]:
        """The names of the parameters that only a ladder has."""
        return [name for name in LadderParams.model_fields if name not in Params.model_fields]

    def rungs(self) -> dict[str, float]:
        """The parameters that determine the rates of a ladder, by name."""
        return {name: getattr(self, name) for name in ("ladder_min_lr", "ladder_max_lr", "ladder_steps")}


class LrRangeParams(TrainParams, LadderParams):
    """Suggests a peak learning rate: a range test for a training with these parameters."""


class ProbeParams(RecipeParams, CalibrationParams):
    """Fits a linear probe in seconds: logistic regression on the features of a pretrained network."""


class LearningCurveParams(TrainParams, LadderParams, ResumeParams):
    """Says what more images would bring: trains on growing parts of the images that you have."""

    learner: Literal["auto", "probe", "train"] = Field(
        "auto", description="what is trained on each part; auto: a probe if there are starting weights, else a training"
    )
    num_sizes: Annotated[int, Field(ge=4, le=12)] | Literal["auto"] = Field(
        "auto",
        description="number of parts to train on: all train images, a half, a quarter and so on; auto: up to 5, each "
        "with 10 images per class or more",
    )
    num_seeds: int = Field(
        3, ge=2, le=20, description="trainings on each part, each with another seed and another choice of the images"
    )


class SweepParams(TrainParams):
    """Runs an Optuna study over training parameters. Each trial is a training, judged on the validation split."""

    study_name: Annotated[str, Like(r"[\w .-]{1,100}", f"1 to 100 {NAME_CHARACTERS}")] = Field(
        "auto", description="name of the study; auto: the name of the experiment file"
    )
    space: Annotated[dict[str, Any], BeforeValidator(from_json)] = Field(
        {},
        description="the values to try: for each parameter [choices] or {low, high, log, step}, with an optional "
        "condition `when`",
    )
    num_trials: int = Field(12, ge=1, le=100_000, description="total number of trials, including finished ones")
    sweep_workers: int = Field(1, ge=1, le=256, description="processes that run trials")
    sampler: Literal["tpe", "random", "grid", "gp", "nsgaii"] = Field("tpe", description="method that suggests values")
    pruner: Literal["auto", "hyperband", "median", "none"] = Field(
        "auto", description="method that ends poor trials early; auto: hyperband if trials can be compared, else none"
    )
    objectives: Annotated[tuple[Objective, ...], BeforeValidator(comma_separated)] = Field(
        ("valid/accuracy",),
        min_length=1,
        max_length=2,
        description="one or two measures to optimise; two give a Pareto front; if not given, the measure of select_by",
    )
    lr_range_first: bool = Field(
        False,
        description="first run a range test for each patch_size; trials try the suggested rates first, and then rates "
        "near them",
    )

    @model_validator(mode="before")
    @classmethod
    def a_sweep_optimises_what_selects_the_epoch(cls, given: Any) -> Any:
        if isinstance(given, dict) and "objectives" not in given and given.get("select_by") in get_args(Selection):
            return {**given, "objectives": (f"valid/{given['select_by']}",)}
        return given

    @model_validator(mode="after")
    def the_first_objective_is_from_validation(self) -> Self:
        first, *others = self.objectives
        if not first.startswith("valid/") or first in others:
            raise ValueError("objectives: one of validation first, such as valid/accuracy, then at most one other")
        return self
