"""Joins the networks of several seeds into one model, in a run of its own: calibrated, stored, ready to serve."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.history import lookup, trained_model
from pipeline.history.trained_model import ModelAndImages
from pipeline.model_files import ensemble
from pipeline.params import MainParams, NetworkParams, TrainStepParams
from pipeline.results import metrics
from pipeline.steps import outputs
from pipeline.steps.step import Result, Step, tracked
from pipeline.tracking import store
from pipeline.tracking.run import Run

VALID_ACCURACY = "weights/best_valid_accuracy"


def run(params: MainParams | TrainStepParams, run_ids: Sequence[str], parent: Run) -> Result:
    """The ensemble of the trainings `run_ids`, in a run below `parent`, the run of the series.

    It has the best weights of each training. `evaluate`, `explain`, `export` and `predict` take it by the id of
    `parent`. Raises ValueError if the networks do not fit together.
    """
    joined = _joined(params, run_ids)
    tags = {
        "dataset": params.dataset,
        "model": joined.params.model,
        "data.digest": joined.splits.digest,
        "precision": joined.precision,
        "ensemble.members": " ".join(run_ids),
        "ensemble.size": len(run_ids),
    }
    title = f"{params.set_name} {joined.network_name}"
    with tracked("ensemble", title, joined.params.model_dump(), tags, parent) as step:
        result = _log(step, joined, params)
    parent.tags({lookup.ENSEMBLE_TAG: result.run_id})
    return result


def _joined(params: MainParams | TrainStepParams, run_ids: Sequence[str]) -> ModelAndImages:
    asked = [params.to(NetworkParams, run_id=run_id, checkpoint="best") for run_id in run_ids]
    first, *others = map(trained_model.find_model, asked)
    together = ensemble.join({each.run_id: each.classifier for each in (first, *others)})
    return trained_model.with_images(replace(first, classifier=together))


def _log(step: Step, joined: ModelAndImages, params: MainParams | TrainStepParams) -> Result:
    run, splits = step.run, joined.splits
    calibrated = outputs.calibrate(splits, joined.classifier.model, joined.precision, params)
    numbers: dict[str, float] = {}
    reached = "without validation"
    if calibrated is not None:
        outputs.log_calibration(run, calibrated)
        numbers[VALID_ACCURACY] = float(calibrated.outcomes.correct.mean())
        reached = f"validation accuracy {metrics.accuracy_in_words(numbers[VALID_ACCURACY], len(splits.valid or ()))}"
    run.metrics(numbers)
    with store.scratch() as folder:
        file = folder / "best.safetensors"
        replace(joined.classifier, calibration=calibrated).save(file)
        run.file(file, f"weights/{file.name}")
        uri = outputs.log_model(run, splits, 0, folder)
    number = len(joined.classifier.description.members)
    return step.conclude(f"{number} networks, {reached}", numbers, more=f"\n\nServed model: `{uri}`")
