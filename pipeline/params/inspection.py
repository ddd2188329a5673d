"""Parameters of the steps that use finished trainings."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.params.base import (
    ID_START,
    NAME_CHARACTERS,
    RUN_ID_WORDS,
    CalibrationParams,
    DeviceParams,
    Like,
    Params,
    RunId,
    SeedParams,
    absolute,
    comma_separated,
    integer,
    trimmed,
)

MapMethod = Literal["auto", "attention_relevance", "attention_rollout", "gradcam", "gradcam++", "layercam", "hirescam"]

MAX_RUNS = 200

RunIdOrLatest = Annotated[str, BeforeValidator(trimmed), Like(f"latest|{ID_START}", f"latest, or {RUN_ID_WORDS}")]
MovedFolder = Annotated[str, AfterValidator(absolute)]


class TrainingRunParams(Params):
    run_id: RunIdOrLatest = Field(
        "latest",
        description="the run of a training, or of several seeds for their ensemble; latest: the newest FINISHED "
        "training, or the probe of its experiment if that is no worse on validation",
    )
    checkpoint: Literal["best", "last"] = Field(
        "best", description="the weights to use: of the best epoch by validation, or of the last epoch"
    )


class EvaluationParams(TrainingRunParams, CalibrationParams):
    views: Annotated[Literal[1, 2, 6], BeforeValidator(integer)] = Field(
        1, description="also evaluate the mean over views of each image: 2 adds its mirror image, 6 also shifted images"
    )
    top_k: int = Field(5, ge=2, le=100, description="k of the top-k accuracy")
    wanted_recall: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="for each class, also find the threshold of its probability that keeps this recall (0: none)",
    )
    wanted_precision: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="for each class, also find the threshold of its probability that reaches this precision on "
        "validation with the highest recall (0: none)",
    )
    register_as: Annotated[
        str, Like(r"(\w[\w .-]{0,99})?", f"a letter or digit, then {NAME_CHARACTERS}, 100 in all")
    ] = Field(
        "",
        description="register the served model under this name in MLflow's registry; it becomes champion, the version "
        "to serve, if there is none or it is better",
    )

    @model_validator(mode="after")
    def a_threshold_has_one_purpose(self) -> Self:
        if self.wanted_recall and self.wanted_precision:
            both = f"wanted_recall={self.wanted_recall:g} and wanted_precision={self.wanted_precision:g}"
            raise ValueError(f"{both}: a class has one threshold; give one of them")
        return self

    @model_validator(mode="after")
    def the_served_model_is_evaluated(self) -> Self:
        if self.register_as and self.checkpoint != "best":
            raise ValueError(f"register_as={self.register_as}: the served model is checkpoint=best, not last")
        return self


class ExplanationParams(TrainingRunParams):
    method: MapMethod = Field(
        "auto",
        description="how maps are made; auto: attention relevance for plain vision transformers, Grad-CAM for all "
        "others",
    )
    num_images: int = Field(8, ge=1, le=64, description="number of misclassified and of correct images to explain")


class FileFormatParams(TrainingRunParams):
    format: Literal["onnx", "torch_export"] = Field(
        "onnx", description="file format: onnx runs in ONNX Runtime and many other programs; torch_export needs torch"
    )


class NetworkParams(TrainingRunParams, DeviceParams):
    """A finished training, without its images."""


class TrainedModelParams(NetworkParams):
    """A finished training, with the images it was trained on."""

    data_dir: MovedFolder = Field("", description="the folder of the images now; empty: as in the training")
    labels: str = Field("", description="the table of labels, relative to data_dir; empty: as in the training")


class EvaluateParams(TrainedModelParams, EvaluationParams):
    """Measures a trained model on the test split: accuracy, confusion and calibration."""


class ExplainParams(TrainedModelParams, ExplanationParams, SeedParams):
    """Shows where a trained model looks: maps of its errors and of correct predictions."""


class RobustnessParams(TrainedModelParams, SeedParams):
    """Measures a trained model on spoiled test images: noise, blur, JPEG, light, rotation, occlusion."""

    reference: Annotated[str, BeforeValidator(trimmed), Like(f"({ID_START})?", RUN_ID_WORDS)] = Field(
        "", description="a training whose errors count as 100 % of the mean corruption error; empty: none"
    )
    limit_test: int = Field(1000, ge=0, description="number of test images to use, evenly spread (0: all)")


class ExportParams(TrainedModelParams, FileFormatParams):
    """Writes a trained model to a file for other programs: ONNX or torch.export, checked on the CPU."""


class PredictParams(NetworkParams, CalibrationParams):
    """Predicts the classes of images without labels: one line per photo on the terminal, or a run with a table."""

    images: str = Field("", description="a folder, a photo or a glob such as 'new/*.jpg'; makes a run with a table")
    photos: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="photos, folders or globs; prints one line per photo, without a run",
        json_schema_extra={"positional": True},
    )
    top_k: int = Field(5, ge=1, le=100, description="number of likeliest classes in the table")
    num_shown: int = Field(
        16, ge=0, le=64, description="images on the contact sheet, the most doubtful ones first (0: no sheet)"
    )
    maps: bool = Field(False, description="show on the contact sheet which pixels speak for the predicted class")


class DemoParams(TrainingRunParams, DeviceParams):
    """Serves a page on this machine to try a model: drop a photo, see its class and a map."""

    port: int = Field(7860, ge=0, le=65535, description="port of the page at 127.0.0.1; 0: a free one")


def _not_repeated(runs: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := {run for run in runs if runs.count(run) > 1}:
        raise ValueError(f"{min(repeated)} is named more than once")
    if len(runs) > MAX_RUNS:
        raise ValueError(f"{len(runs)} runs; name at most {MAX_RUNS}")
    return runs


class CompareParams(DeviceParams, SeedParams):
    """Compares trainings on the same test images: which is better, by how much, where, and how certain that is."""

    runs: Annotated[tuple[RunId, ...], BeforeValidator(comma_separated), AfterValidator(_not_repeated)] = Field(
        description="trainings, evaluations or experiments, comma-separated; all others are compared with the first",
        json_schema_extra={"words": True},
    )
    method: MapMethod = Field(
        "auto",
        description="how maps are made, of images that only one of two models has right; auto: attention relevance for "
        "plain vision transformers, Grad-CAM for all others",
    )
    num_images: int = Field(
        4,
        ge=0,
        le=32,
        description="for each of two models, number of images to show that only this model has right (0: none)",
    )
    data_dir: MovedFolder = Field("", description="the folder of the images now; empty: as in the training")
    labels: str = Field("", description="the table of labels, relative to data_dir; empty: as in the training")


class ReportParams(Params):
    """Writes a report as one HTML page: of a finished experiment, or of one of its steps."""

    run_id: RunIdOrLatest = Field("latest", description="the run to report on; latest: the newest FINISHED experiment")
