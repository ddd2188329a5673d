"""Outputs of a training or a probe in its run: a description of the input, calibrated weights, a model to serve."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor, nn

from pipeline.data import Splits
from pipeline.data.tree import in_words
from pipeline.model_files import checkpoint, stored_calibration
from pipeline.models import weights as starting_weights
from pipeline.params import ProbeParams
from pipeline.params.base import CalibrationParams
from pipeline.progress import meter, say
from pipeline.results import prediction_sets
from pipeline.tracking.run import Run
from pipeline.training import calibration, device
from pipeline.training.calibration import Calibration
from pipeline.training.recipe import Recipe
from pipeline.training.validation import FEW

EXAMPLES = 2  # images stored with the served model


def describe_input(run: Run, recipe: Recipe) -> None:
    """Logs recipe, images, splits and machine as tags and tables, and names the files that were left out."""
    params, splits = recipe.params, recipe.splits
    run.json("recipe.json", recipe.identity())
    run.tags({"dataset": params.dataset, "model": params.model, "recipe": recipe.fingerprint()})
    run.tags({"device": recipe.device, "precision": recipe.precision, "data.digest": splits.digest})
    run.tags({**starting_weights.tags(recipe.pretrained), "machine": device.describe(recipe.device)})
    run.dataset(splits.name, splits.digest, params.data_dir, "training")
    classes = np.array(splits.classes, dtype=object)
    rows = [
        pd.DataFrame({"split": split, "index": index, "name": part.names, "class": classes[part.labels]})
        for split, index in splits.indices.items()
        for part in (getattr(splits, split),)
    ]
    run.table("splits.csv", pd.concat(rows))
    report = splits.report
    if report.left_out:
        run.table("left_out.csv", pd.DataFrame(report.left_out, columns=["file", "reason"]))
    named = {"named in left_out.csv": len(report.left_out)}
    if counts := in_words({**report.skipped, **report.unread, **named}):
        run.tags({"data.left_out": counts})
        say(f"files left out: {counts}")
    if splits.valid is None:
        say("no validation split: all of train is trained on, the best weights are the last, and nothing is calibrated")
    elif len(splits.valid) < FEW:
        warning = f"{len(splits.valid)} validation images are few: all that they choose or calibrate is uncertain"
        kept = (
            "" if isinstance(recipe.params, ProbeParams) else ", so the last epoch is kept unless it is clearly worse"
        )
        say(f"warning: {warning}{kept}")


def calibrate(splits: Splits, model: nn.Module, precision: str, params: CalibrationParams) -> Calibration | None:
    """The calibration of `model`, which it puts into evaluation mode; None without validation images."""
    if splits.valid is None:
        return None
    with meter("calibrate", calibration.num_images(splits)) as progress:

        def done(images: int) -> None:
            progress.at(images, lambda: f"images {images:,}")

        found = calibration.calibrate(model.eval(), splits, precision, done)
    return found.wanting(params.reject_above_error, params.set_coverage)


def log_calibration(run: Run, known: Calibration, logged: Mapping[str, float] | None = None) -> None:
    """Logs the numbers of a calibration, and says if validation has too few images for sets of classes.

    logged: the metrics that the run has already.
    """
    run.metrics(missing(stored_calibration.numbers(known), logged or {}))
    if lack := prediction_sets.lack(known.sets):
        say(lack)


def missing(numbers: Mapping[str, float], logged: Mapping[str, float]) -> dict[str, float]:
    """The `numbers` without those that are `logged` with the same value."""
    return {name: value for name, value in numbers.items() if logged.get(name) != value}


def log_weights(
    run: Run,
    recipe: Recipe,
    kind: str,
    weights: Mapping[str, Tensor],
    epoch: int,
    folder: Path,
    calibration: Calibration | None = None,
) -> None:
    """Logs `weights` after `epoch` as weights/<kind>.safetensors. This file alone can rebuild the classifier."""
    file = f"{kind}.safetensors"
    tensors, description = dict(weights), _description(recipe, epoch)
    if calibration is not None:
        tensors |= stored_calibration.tensors(calibration)
        description |= stored_calibration.described(calibration)
    checkpoint.save(folder / file, tensors, description)
    run.file(folder / file, f"weights/{file}")


def log_model(run: Run, splits: Splits, epoch: int, folder: Path) -> str:
    """Logs the model to serve, from the best weights in `folder`. Returns its URI."""
    example = splits.train.take(np.arange(min(EXAMPLES, len(splits.train))))
    return run.model(folder / "best.safetensors", example, epoch)


def _description(recipe: Recipe, epoch: int) -> dict[str, object]:
    start = recipe.pretrained
    return {
        "network": {"name": recipe.params.model, "options": recipe.params.network_options()},
        "image_size": recipe.params.image_size,
        "resize": recipe.params.resize,
        "interpolation": recipe.interpolation,
        "margin": recipe.params.margin,
        "classes": list(recipe.splits.classes),
        "mean": list(recipe.splits.mean),
        "std": list(recipe.splits.std),
        "epoch": epoch,
        "started_from": None if start is None else start.origin,
        "licence": "" if start is None else start.licence,
    }
