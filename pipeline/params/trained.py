"""What the steps take that look at a finished training."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.params.declared import absolute, comma_separated, integer
from pipeline.params.recipe import DeviceParams, SeedParams

CamMethod = Literal["gradcam", "gradcam++", "layercam", "hirescam", "eigencam", "scorecam"]


class TrainedParams(DeviceParams):
    """A training run to look at, on the data it was trained on."""

    run_id: str = Field(
        "latest",
        pattern=r"^(latest|[0-9a-f]{32})$",
        description="training run; latest is the newest FINISHED one",
    )
    checkpoint: Literal["best", "last"] = Field(
        "best", description="whose weights: of the best epoch by validation, or the last"
    )
    data_dir: Annotated[str, AfterValidator(absolute)] = Field(
        "", description="where the images lie now; empty: where the training found them"
    )


class EvaluateParams(TrainedParams):
    """Accuracy, confusion and calibration of a trained model on the test split."""

    views: Annotated[Literal[1, 2, 6], BeforeValidator(integer)] = Field(
        1, description="of each image, averaged, beside the plain result: 2 with its mirror image, 6 shifted too"
    )
    top_k: int = Field(5, ge=2, le=100, description="k of the top-k accuracy")
    register_as: str = Field(
        "",
        pattern=r"^(\w[\w .-]{0,99})?$",
        description="name in MLflow's registry: the served model becomes a version, champion if it beats the other",
    )

    @model_validator(mode="after")
    def what_is_served_is_evaluated(self) -> Self:
        if self.register_as and self.checkpoint != "best":
            raise ValueError(f"register_as={self.register_as}: what is served is checkpoint=best, not last")
        return self


class ExplainParams(TrainedParams, SeedParams):
    """Where a trained model looks, for its errors and its hits."""

    method: CamMethod = Field("gradcam", description="class activation map")
    num_images: int = Field(8, ge=1, le=64, description="misclassified images explained, and as many correct ones")


class PredictParams(TrainedParams):
    """What a trained model says of images without labels: a line each for photos that are named, or a run."""

    images: str = Field("", description="a folder, a photo or a glob such as 'new/*.jpg': a run with a table")
    photos: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="photos, folders or globs, answered on the terminal, without a run",
        json_schema_extra={"positional": True},
    )
    top_k: int = Field(5, ge=1, le=100, description="classes told of each image, the likeliest first")
    num_shown: int = Field(16, ge=0, le=64, description="images on the contact sheet, those to doubt first (0: none)")
    maps: bool = Field(False, description="on the contact sheet, Grad-CAM maps of what speaks for the predicted class")


class ExportParams(TrainedParams):
    """A trained model as one file for other programs, made and checked on the CPU."""

    format: Literal["onnx", "torch_export"] = Field(
        "onnx", description="onnx runs in ONNX Runtime and many others; torch_export wherever torch is"
    )
