"""A linear probe as a tracked step: a pretrained network whose head is a logistic regression on its features."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pipeline.data import Split
from pipeline.history import initial_weights
from pipeline.params import ProbeParams, TrainParams
from pipeline.progress import Meter, meter, say
from pipeline.results import dependence, metrics
from pipeline.steps import outputs
from pipeline.steps.step import Result, Step, tracked
from pipeline.tracking import store
from pipeline.tracking.run import Run
from pipeline.training import calibration, features, probe, validation
from pipeline.training.calibration import Calibration
from pipeline.training.features import Features
from pipeline.training.probe import Probe
from pipeline.training.recipe import Recipe

EPOCH = 1  # the epoch of its numbers: one pass over the images


def run(params: ProbeParams, parent: Run | None = None) -> Result:
    """Fits a head to the features of the pretrained network that `params` declare."""
    check_weights(params.weights)
    recipe = initial_weights.prepare(params)
    logged = params.to(TrainParams).model_dump()
    with tracked("probe", f"{params.set_name} {params.model} probe", logged, {}, parent) as step:
        outputs.describe_input(step.run, recipe)
        model = recipe.model(params.seed)
        probe.check(model)
        head, numbers, calibrated = _fit(recipe, model, params)
        probe.put(model, head)
        step.run.metrics(numbers, step=EPOCH)
        return _conclude(step, recipe, model, head, numbers, calibrated)


def check_weights(weights: str) -> None:
    """Raises ValueError if there are no pretrained weights whose head a probe could be."""
    if weights == "none":
        raise ValueError(
            "weights=none: a probe needs pretrained weights; give weights=default, or model=timm/<name> with it"
        )


def _fit(recipe: Recipe, model: nn.Module, params: ProbeParams) -> tuple[Probe, dict[str, float], Calibration | None]:
    """The head, its loss and accuracy on the train and validation images, keyed by metric name, and its calibration."""
    splits = recipe.splits
    parts = {"train": splits.train, **({} if splits.valid is None else {"valid": splits.valid})}
    with meter("probe", sum(map(len, parts.values()))) as progress:
        both = {name: features_of(recipe, model, part, progress) for name, part in parts.items()}
    found = {name: each.of_head for name, each in both.items()}
    labels = {name: part.labels for name, part in parts.items()}
    groups = dependence.numbers(splits.groups_of(splits.train))
    of_valid = found.get("valid"), labels.get("valid")
    head = probe.fit(found["train"], labels["train"], *of_valid, len(splits.classes), groups)
    say(f"probe: strength {head.strength:g}, by {head.chosen_by}")
    logits = {name: values @ head.weight.T + head.bias for name, values in found.items()}
    numbers = {
        f"{name}/{metric}": value
        for name, values in logits.items()
        for metric, value in _measured(values, labels[name]).items()
    }
    calibrated = None
    if "valid" in both:
        train, valid = both["train"], both["valid"]
        calibrated = calibration.of_features(logits["valid"], valid, labels["valid"], train, labels["train"])
        calibrated = calibrated.wanting(params.reject_above_error, params.set_coverage)
    return head, numbers | _cross_validated(head, labels["train"], groups), calibrated


def _cross_validated(head: Probe, labels: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    """Accuracy on the train images, with its intervals. Each image is predicted by a fit without it and its group."""
    if head.out_of_fold is None:
        return {}
    correct = head.out_of_fold.argmax(1) == labels
    numbers = metrics.accuracy("cv/accuracy", correct)
    over = None if groups is None else dependence.share(correct, groups)
    if over is not None:
        numbers |= {"cv/accuracy_over_groups_low": over.low, "cv/accuracy_over_groups_high": over.high}
    say(f"probe: cross-validated accuracy {metrics.accuracy_in_words(numbers['cv/accuracy'], len(labels), over)}")
    return numbers


def features_of(recipe: Recipe, model: nn.Module, part: Split, progress: Meter) -> Features:
    """The features of `model` for each image of `part`, one unit of `progress` per image."""
    before = progress.done
    return features.of_split(
        model,
        recipe.splits,
        part,
        recipe.precision,
        recipe.backbone,
        lambda done: progress.at(before + done, lambda: f"features {int(before) + done:,}"),
    )


def _measured(logits: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    return validation.measure(torch.from_numpy(logits.astype(np.float64)), torch.from_numpy(labels))


def _conclude(
    step: Step,
    recipe: Recipe,
    model: nn.Module,
    head: Probe,
    numbers: Mapping[str, float],
    calibrated: Calibration | None,
) -> Result:
    found = {"weights/best_epoch": float(EPOCH)}
    if "valid/accuracy" in numbers:
        found |= {f"weights/best_{name.replace('/', '_')}": numbers[name] for name in numbers if "valid/" in name}
        reached = metrics.accuracy_in_words(numbers["valid/accuracy"], len(recipe.splits.valid or ()))
        result = f"validation accuracy {reached}"
    else:
        result = f"train accuracy {numbers['train/accuracy']:.2%}, without validation"
    step.run.metrics(found)
    step.run.tags({"probe.strength": head.strength})
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if calibrated is not None:
        outputs.log_calibration(step.run, calibrated)
    with store.scratch() as folder:
        for kind in ("best", "last"):
            outputs.log_weights(step.run, recipe, kind, weights, EPOCH, Path(folder), calibrated)
        uri = outputs.log_model(step.run, recipe.splits, EPOCH, Path(folder))
    handed = {"run_id": step.run.id, "weights": f"run:{step.run.id}"}
    return step.conclude(
        f"{result}, strength {head.strength:g}", found, more=f"\n\nServed model: `{uri}`", handed=handed
    )
