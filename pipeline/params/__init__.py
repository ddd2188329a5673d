"""Every knob of every step: name, type, default, bounds, unit and meaning. The one truth, read by all others."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.params.compare import CompareParams
from pipeline.params.declared import Declared, Params, absolute, as_text, comma_separated, without_password
from pipeline.params.doctor import DoctorParams
from pipeline.params.networks import ModelName
from pipeline.params.recipe import (
    INTERDEPENDENT,
    DataParams,
    DatasetName,
    DeviceParams,
    ModelParams,
    RecipeParams,
    Resize,
)
from pipeline.params.report import ReportParams
from pipeline.params.terminal import StatusParams, TerminalParams
from pipeline.params.trained import CamMethod, EvaluateParams, ExplainParams, ExportParams, PredictParams, TrainedParams
from pipeline.params.training import (
    LrRangeParams,
    ResumeParams,
    SeedsParams,
    SweepParams,
    TrainParams,
    TrainStepParams,
)

__all__ = [
    "COMMANDS",
    "INTERDEPENDENT",
    "STEPS",
    "TOOLS",
    "CamMethod",
    "CompareParams",
    "DataParams",
    "DatasetName",
    "Declared",
    "DeviceParams",
    "DoctorParams",
    "EvaluateParams",
    "ExplainParams",
    "ExportParams",
    "LrRangeParams",
    "MainParams",
    "ModelName",
    "ModelParams",
    "Params",
    "PredictParams",
    "RecipeParams",
    "ReportParams",
    "Resize",
    "StatusParams",
    "SweepParams",
    "SyncParams",
    "TerminalParams",
    "TrainParams",
    "TrainStepParams",
    "TrainedParams",
    "VerifyResumeParams",
    "absolute",
    "as_text",
    "without_password",
]

StepName = Literal["doctor", "lr_range", "sweep", "train", "evaluate", "explain", "export"]


class MainParams(
    SweepParams,
    LrRangeParams,
    EvaluateParams,
    ExplainParams,
    ExportParams,
    DoctorParams,
    ResumeParams,
    SeedsParams,
    ReportParams,
):
    """A whole experiment: the steps above in order, under one parent run."""

    steps: Annotated[tuple[StepName, ...], BeforeValidator(comma_separated)] = Field(
        ("lr_range", "train", "evaluate", "explain"), min_length=1, description="steps to run, in order"
    )

    @model_validator(mode="after")
    def seeds_are_of_trainings(self) -> Self:
        if self.num_seeds > 1 and "train" not in self.steps:
            raise ValueError(f"num_seeds={self.num_seeds}: no training is among the steps {','.join(self.steps)}")
        return self

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
    "doctor": DoctorParams,
    "lr_range": LrRangeParams,
    "sweep": SweepParams,
    "train": TrainStepParams,
    "evaluate": EvaluateParams,
    "explain": ExplainParams,
    "predict": PredictParams,
    "report": ReportParams,
    "compare": CompareParams,
    "export": ExportParams,
}
# What is no step of an experiment, and no entry point of the MLflow Project.
TOOLS: dict[str, type[Declared]] = {"status": StatusParams, "sync": SyncParams, "verify_resume": VerifyResumeParams}
COMMANDS: dict[str, type[Declared]] = {**STEPS, **TOOLS}
