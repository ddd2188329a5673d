"""Trains on growing parts of the images, as a tracked step, and says what more images would bring."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from pipeline.history import initial_weights, trained_model
from pipeline.params import LearningCurveParams, ProbeParams, TrainedModelParams, TrainParams
from pipeline.results import dependence, learning_curve, plots
from pipeline.results.dependence import Interval
from pipeline.results.learning_curve import LEAST_SIZES, Curve, Size
from pipeline.steps import plan, probe, train
from pipeline.steps.plan import Planned
from pipeline.steps.step import Result, tracked
from pipeline.tracking.run import Run
from pipeline.training.recipe import Recipe

PER_CLASS = 10  # images: with fewer, a network may guess, and errors near chance follow no power law
USUAL_SIZES = 5
AHEAD = 4  # the curve is drawn up to this multiple of all images
POINTS = 49  # of the drawn curve


def run(params: LearningCurveParams) -> Result:
    """Trains or probes on growing parts of the train images, and fits a power law to the errors on test."""
    learner = ("train" if params.weights == "none" else "probe") if params.learner == "auto" else params.learner
    whole = params.to(ProbeParams if learner == "probe" else TrainParams, valid_fraction=0.0)
    if learner == "probe":
        probe.check_weights(params.weights)
    recipe = initial_weights.prepare(whole)
    sizes = _sizes(recipe, params, learner)
    planned = list(_planned(params, learner, sizes))
    done = plan.finished(params.resume)
    title = f"{params.set_name} {params.model} learning curve"
    own = None if params.resume else params.model_dump(exclude={"resume"})
    tags = {"dataset": params.dataset, "model": params.model, "learner": learner}
    with tracked("learning_curve", title, own, tags, reopen=params.resume) as step:
        splits = recipe.splits
        step.run.dataset(splits.name, splits.digest, params.data_dir, "training")
        results = plan.follow(step.run, planned, params, {"train": train.run, "probe": probe.run}, done)
        found = _measured(step.run, params, planned, results)
        groups = dependence.numbers(splits.groups_of(splits.test))
        curve = learning_curve.measure(found, groups, params.seed)
        sentence, numbers = _report(step.run, title, curve, found, len(splits.classes))
        step.run.metrics(numbers)
        return step.conclude(sentence, numbers, before=f"\n{plan.table_of(planned, results)}\n\n")


def _sizes(recipe: Recipe, params: LearningCurveParams, learner: str) -> list[int]:
    """All train images, a half of them, a quarter and so on, in rising order. Raises ValueError if they are too few."""
    total, num_classes = len(recipe.splits.train), len(recipe.splits.classes)
    least, why = PER_CLASS * num_classes, f"{PER_CLASS} for each of {num_classes} classes"
    if learner == "train" and (of_batch := math.ceil(params.batch_size / (1 - params.valid_fraction)) + 1) > least:
        least, why = of_batch, f"for one batch of {params.batch_size}, and validation"
    most = max(0, total // least).bit_length()  # sizes: all images, and each half of the one before
    number = min(USUAL_SIZES, most) if params.num_sizes == "auto" else params.num_sizes
    if not LEAST_SIZES <= number <= most:
        raise ValueError(
            f"num_sizes={params.num_sizes}: {total:,} train images, halved again and again, give {most} sizes of "
            f"{least} or more ({why}); a learning curve needs {max(number, LEAST_SIZES)}"
        )
    return [total // 2**power for power in reversed(range(number))]


def _planned(params: LearningCurveParams, learner: str, sizes: Sequence[int]) -> Iterator[Planned]:
    """The trainings, the smallest first, so that the newest run has all images.

    All have about as many updates: smaller parts get more epochs, so that only the images differ.
    """
    for size in sizes:
        # Probes of all images would be equal, whatever the seed.
        times = 1 if learner == "probe" and size == sizes[-1] else params.num_seeds
        for number in range(times):
            changes = {"limit_train": size, "limit_seed": params.limit_seed + number}
            changes["epochs"] = round(params.epochs * sizes[-1] / size)
            yield Planned(learner, params.seed + number, params.fold, changes)


def _measured(
    run: Run, params: LearningCurveParams, planned: Sequence[Planned], results: Sequence[Result]
) -> list[Size]:
    """Which test images each training has wrong; logs the accuracy of each as trainings.csv."""
    wrong: dict[int, list[np.ndarray]] = {}
    rows = []
    for each, result in zip(planned, results, strict=True):
        images = each.changes["limit_train"]
        found = _wrong(result.run_id, params)
        wrong.setdefault(images, []).append(found)
        accuracy = 1 - found.mean()
        rows.append({"images": images, "seed": each.seed, "accuracy": accuracy, "run_id": result.run_id})
    run.table("trainings.csv", pd.DataFrame(rows))
    last = max(wrong)  # of all images there is one selection
    return [Size(size, np.stack(each), 1 if size == last else len(each)) for size, each in wrong.items()]


def _wrong(run_id: str, params: LearningCurveParams) -> np.ndarray:
    """Whether the network of a training is wrong on each test image, (N,) bool."""
    trained = trained_model.find(params.to(TrainedModelParams, run_id=run_id))
    return trained.test_logits().argmax(1).numpy() != trained.splits.test.labels


def _report(
    run: Run, title: str, curve: Curve, sizes: Sequence[Size], num_classes: int
) -> tuple[str, dict[str, float]]:
    """Logs the curve as tables and a figure. Returns its result in a sentence, and as metrics."""
    images, total = curve.images, int(curve.images[-1])
    measured = [_row(size.images, curve.measured(place), num_classes) for place, size in enumerate(sizes)]
    table = pd.DataFrame(measured).assign(trainings=[len(size.wrong) for size in sizes])
    drawn = np.geomspace(images[0], AHEAD * total, POINTS)
    forecast = pd.DataFrame([_row(each, curve.accuracy(each), num_classes) for each in drawn.round().astype(int)])
    run.table("learning_curve.csv", table)
    run.table("forecast.csv", forecast)
    check, double = curve.check(), curve.gain(total, 2 * total)
    before, after = f"{total / num_classes:,.0f}", f"{2 * total / num_classes:,.0f}"
    gain = f"from {before} to {after} images per class: {_points(double)}"
    verdict = "the curve holds" if check.holds else "the curve misses it, so do not rely on the forecast"
    checked = f"predicted at {check.predicted.value:.2%} and reached {check.measured:.2%} ({_points(check.difference)})"
    sentence = f"{gain}; the largest size, held back, was {checked}: {verdict}"
    run.figure("learning_curve.png", plots.learning_curve(table, forecast, check, f"{title}: {gain}"))
    numbers = {"learning_curve/images": float(total), "learning_curve/images_per_class": total / num_classes}
    named = {"accuracy": curve.measured(-1), "gain_of_double": double, "gain_of_fourfold": curve.gain(total, 4 * total)}
    named |= {"check_predicted": check.predicted, "check_difference": check.difference}
    for name, found in named.items():
        numbers |= found.metrics(f"learning_curve/{name}")
    return sentence, numbers | {"learning_curve/check_holds": float(check.holds)}


def _row(images: int, accuracy: Interval, num_classes: int) -> dict[str, float]:
    return {"images": images, "images_per_class": images / num_classes, **_named(accuracy)}


def _named(accuracy: Interval) -> dict[str, float]:
    return {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}


def _points(found: Interval) -> str:
    return f"{100 * found.value:+.1f} points ({100 * found.low:.1f} to {100 * found.high:.1f})"
