"""Every knob of every step: name, type, default, bounds, unit and meaning. The one truth, read by all others."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.params.declared import Declared, Params, as_text, comma_separated
from pipeline.params.recipe import (
    SIZES,
    DataParams,
    DatasetName,
    DeviceParams,
    ModelName,
    ModelParams,
    RecipeParams,
    Resize,
)
from pipeline.params.trained import CamMethod, EvaluateParams, ExplainParams, ExportParams, TrainedParams
from pipeline.params.training import LrRangeParams, ResumeParams, SweepParams, TrainParams, TrainStepParams

__all__ = [
    "COMMANDS",
    "SIZES",
    "STEPS",
    "TOOLS",
    "CamMethod",
    "DataParams",
    "DatasetName",
    "Declared",
    "DeviceParams",
    "EvaluateParams",
    "ExplainParams",
    "ExportParams",
    "LrRangeParams",
    "MainParams",
    "ModelName",
    "ModelParams",
    "Params",
    "RecipeParams",
    "Resize",
    "SweepParams",
    "SyncParams",
    "TrainParams",
    "TrainStepParams",
    "TrainedParams",
    "VerifyResumeParams",
    "as_text",
]

StepName = Literal["lr_range", "sweep", "train", "evaluate", "explain", "export"]


class MainParams(SweepParams, LrRangeParams, EvaluateParams, ExplainParams, ExportParams, ResumeParams):
    """A whole experiment: the steps above in order, under one parent run."""

    steps: Annotated[tuple[StepName, ...], BeforeValidator(comma_separated)] = Field(
        ("lr_range", "train", "evaluate", "explain"), min_length=1, description="steps to run, in order"
    )

    @model_validator(mode="after")
    def what_is_registered_is_evaluated(self) -> Self:
        if self.register_as and "evaluate" not in self.steps:
            raise ValueError(f"register_as={self.register_as}: evaluate is not among the steps {','.join(self.steps)}")
        return self


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
    "export": ExportParams,
}
# What is no step of an experiment, and no entry point of the MLflow Project.
TOOLS: dict[str, type[Declared]] = {"sync": SyncParams, "verify_resume": VerifyResumeParams}
COMMANDS: dict[str, type[Declared]] = {**STEPS, **TOOLS}
