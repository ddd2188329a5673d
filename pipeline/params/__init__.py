"""Declares every parameter of every step once: name, type, default, bounds, unit and meaning."""

from pipeline.params.base import Declared, DeviceParams, Params, absolute, as_text
from pipeline.params.devices import TrainStepParams
from pipeline.params.doctor import DoctorParams
from pipeline.params.inspection import (
    CompareParams,
    DemoParams,
    EvaluateParams,
    ExplainParams,
    ExportParams,
    MapMethod,
    NetworkParams,
    PredictParams,
    ReportParams,
    RobustnessParams,
    TrainedModelParams,
)
from pipeline.params.main import MainParams
from pipeline.params.networks import ModelName, ModelParams
from pipeline.params.recipe import (
    INTERDEPENDENT,
    DataParams,
    DatasetName,
    RecipeParams,
    Resize,
)
from pipeline.params.terminal import ModelsParams, StatusParams, SyncParams, TerminalParams
from pipeline.params.training import (
    LadderParams,
    LearningCurveParams,
    LrRangeParams,
    ProbeParams,
    SweepParams,
    TrainParams,
)

__all__ = [
    "COMMANDS",
    "INTERDEPENDENT",
    "MOVED_COMMANDS",
    "NOT_OFFERED",
    "REMOVED",
    "RENAMED",
    "STEPS",
    "TOOLS",
    "CompareParams",
    "DataParams",
    "DatasetName",
    "Declared",
    "DemoParams",
    "DeviceParams",
    "DoctorParams",
    "EvaluateParams",
    "ExplainParams",
    "ExportParams",
    "LadderParams",
    "LearningCurveParams",
    "LrRangeParams",
    "MainParams",
    "MapMethod",
    "ModelName",
    "ModelParams",
    "ModelsParams",
    "NetworkParams",
    "Params",
    "PredictParams",
    "ProbeParams",
    "RecipeParams",
    "ReportParams",
    "Resize",
    "RobustnessParams",
    "StatusParams",
    "SweepParams",
    "SyncParams",
    "TerminalParams",
    "TrainParams",
    "TrainStepParams",
    "TrainedModelParams",
    "absolute",
    "as_text",
]

STEPS: dict[str, type[Params]] = {
    "main": MainParams,
    "doctor": DoctorParams,
    "lr_range": LrRangeParams,
    "probe": ProbeParams,
    "sweep": SweepParams,
    "train": TrainStepParams,
    "evaluate": EvaluateParams,
    "explain": ExplainParams,
    "predict": PredictParams,
    "report": ReportParams,
    "compare": CompareParams,
    "learning_curve": LearningCurveParams,
    "robustness": RobustnessParams,
    "export": ExportParams,
}
# Commands that are neither a step of an experiment nor an entry point of the MLflow Project.
TOOLS: dict[str, type[Declared]] = {
    "demo": DemoParams,
    "models": ModelsParams,
    "status": StatusParams,
    "sync": SyncParams,
}
COMMANDS: dict[str, type[Declared]] = {**STEPS, **TOOLS}

# Names from earlier versions, with the answer to whoever uses them; docs/changes.md lists them too.
RENAMED = {
    "lr_min": "ladder_min_lr",
    "lr_max": "ladder_max_lr",
    "num_steps": "ladder_steps",
    "num_workers": "sweep_workers",
}
# Class activation maps that grad-cam has and this project does not offer. They are no misspellings of other names.
NOT_OFFERED = {"ablationcam", "eigencam", "eigengradcam", "fullgrad", "gradcamelementwise", "kpcacam", "randomcam"}
NOT_OFFERED |= {"scorecam", "xgradcam"}
REMOVED = {"watts": "the report no longer guesses the energy"}
MOVED_COMMANDS = {"verify_resume": "python -m benchmarks.verify_resume"}
