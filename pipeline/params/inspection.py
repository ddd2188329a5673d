"""Parameters of the steps that look at finished trainings."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.params.base import (
    ID_START,
    NAME_CHARACTERS,
    OF_A_RUN,
    Like,
    Params,
    RunId,
    absolute,
    comma_separated,
    integer,
    trimmed,
)
from pipeline.params.recipe import DeviceParams, SeedParams

MapMethod = Literal["auto", "attention_relevance", "attention_rollout", "gradcam", "gradcam++", "layercam", "hirescam"]

MAX_RUNS = 200

Asked = Annotated[str, BeforeValidator(trimmed), Like(f"latest|{ID_START}", f"latest, or {OF_A_RUN}")]
MovedFolder = Annotated[str, AfterValidator(absolute)]


class TrainingRunParams(Params):
    run_id: Asked = Field("latest", description="training run; latest is the newest FINISHED one")
    checkpoint: Literal["best", "last"] = Field(
        "best", description="whose weights: of the best epoch by validation, or the last"
    )


class EvaluationParams(TrainingRunParams):
    views: Annotated[Literal[1, 2, 6], BeforeValidator(integer)] = Field(
        1, description="of each image, averaged, beside the plain result: 2 with its mirror image, 6 shifted too"
    )
    top_k: int = Field(5, ge=2, le=100, description="k of the top-k accuracy")
    register_as: Annotated[
        str, Like(r"(\w[\w .-]{0,99})?", f"a letter or digit, then {NAME_CHARACTERS}, 100 in all")
    ] = Field(
        "",
        description="name in MLflow's registry: the served model becomes a version, champion if it beats the other",
    )

    @model_validator(mode="after")
    def what_is_served_is_evaluated(self) -> Self:
        if self.register_as and self.checkpoint != "best":
            raise ValueError(f"register_as={self.register_as}: what is served is checkpoint=best, not last")
        return self


class ExplanationParams(TrainingRunParams):
    method: MapMethod = Field(
        "auto",
        description="how maps are made; auto: attention relevance for vision transformers, Grad-CAM for all others",
    )
    num_images: int = Field(8, ge=1, le=64, description="misclassified images explained, and as many correct ones")


class FileFormatParams(TrainingRunParams):
    format: Literal["onnx", "torch_export"] = Field(
        "onnx", description="onnx runs in ONNX Runtime and many others; torch_export wherever torch is"
    )


class TrainedModelParams(TrainingRunParams, DeviceParams):
    """A finished training to look at, on the data it was trained on."""

    data_dir: MovedFolder = Field("", description="where the images lie now; empty: where the training found them")
    labels: str = Field("", description="the table of labels, as data_dir sees it now; empty: that of the training")


class EvaluateParams(TrainedModelParams, EvaluationParams):
    """Accuracy, confusion and calibration of a trained model on the test split."""


class ExplainParams(TrainedModelParams, ExplanationParams, SeedParams):
    """Where a trained model looks, for its errors and its hits."""


class ExportParams(TrainedModelParams, FileFormatParams):
    """A trained model as one file for other programs, made and checked on the CPU."""


class PredictParams(TrainedModelParams):
    """What a trained model says of images without labels: a line each for photos that are named, or a run."""

    images: str = Field("", description="a folder, a photo or a glob such as 'new/*.jpg': a run with a table")
    photos: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="photos, folders or globs, answered on the terminal, without a run",
        json_schema_extra={"positional": True},
    )
    top_k: int = Field(5, ge=1, le=100, description="likeliest classes listed for each image")
    num_shown: int = Field(16, ge=0, le=64, description="images on the contact sheet, those to doubt first (0: none)")
    maps: bool = Field(False, description="on the contact sheet, maps of what speaks for the predicted class")


def _not_repeated(runs: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := {run for run in runs if runs.count(run) > 1}:
        raise ValueError(f"{min(repeated)} is named more than once")
    if len(runs) > MAX_RUNS:
        raise ValueError(f"{len(runs)} runs; name {MAX_RUNS} at most")
    return runs


class CompareParams(DeviceParams, SeedParams):
    """Which of several trainings is better on the same test images: by how much, where, and how sure that is."""

    runs: Annotated[tuple[RunId, ...], BeforeValidator(comma_separated), AfterValidator(_not_repeated)] = Field(
        description="trainings, evaluations or experiments, comma-separated; all others are compared with the first"
    )
    method: MapMethod = Field(
        "auto", description="how maps of the images they disagree on are made; auto: as suits each network"
    )
    num_images: int = Field(
        4, ge=0, le=32, description="images shown that only the one has right, and as many of the other (0: none)"
    )
    data_dir: MovedFolder = Field("", description="where the images lie now; empty: where the training found them")
    labels: str = Field("", description="the table of labels, as data_dir sees it now; empty: that of the training")


class ReportParams(Params):
    """One page, in one file, of what a finished experiment has left, or a step of one but doctor and export."""

    run_id: Asked = Field("latest", description="the run to report on; latest is the newest FINISHED experiment")
