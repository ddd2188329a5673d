"""Headings for groups of parameters, in the help of a command and in the docs."""

from inspect import get_annotations

from pipeline.params.base import Declared

# Each class that declares parameters, by name, with its heading. Help and docs list the groups in this order.
HEADINGS = {
    "DataParams": "Images",
    "ModelParams": "Network",
    "FineTuningParams": "Starting weights",
    "RecipeParams": "Recipe",
    "TrainParams": "Training",
    "LadderParams": "Ladders of a range test",
    "SeriesParams": "Seeds",
    "MainParams": "Whole experiment",
    "LearningCurveParams": "Learning curve",
    "SweepParams": "Sweep",
    "StudyParams": "Study database",
    "TrainingRunParams": "Finished training",
    "TrainedModelParams": "Images of a finished training",
    "EvaluationParams": "Evaluation",
    "ExplanationParams": "Explanation",
    "FileFormatParams": "Export",
    "CheckupParams": "Doctor",
    "PredictParams": "Prediction",
    "DemoParams": "Demo",
    "CompareParams": "Comparison",
    "RobustnessParams": "Robustness",
    "ReportParams": "Report",
    "StatusParams": "Status",
    "ModelsParams": "List of networks",
    "NormalisationParams": "Normalisation",
    "FlipParams": "Mirroring",
    "SeedParams": "Seed",
    "CalibrationParams": "Unsure answers and sets of classes",
    "DeviceParams": "Device",
    "TrainStepParams": "Several devices",
    "ResumeParams": "Resuming",
    "Params": "Experiment file",
    "TerminalParams": "Terminal",
}


def groups(params: type[Declared]) -> dict[str, list[str]]:
    """The names of the parameters of a command under each heading, in the order of `HEADINGS`."""
    classes = {kind.__name__: own(kind) for kind in params.__mro__ if issubclass(kind, Declared)}
    return {heading: classes[name] for name, heading in HEADINGS.items() if classes.get(name)}


def own(kind: type[Declared]) -> list[str]:
    """Names of the parameters that a class itself declares."""
    return [name for name in get_annotations(kind) if name in kind.model_fields]
