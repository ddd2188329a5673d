"""Evaluates a network on the test split, as a tracked step."""

import hashlib
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax
from torch import nn

from pipeline.data import Split
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.data.splits import DIGESTED_AT_A_TIME
from pipeline.history import trained_model
from pipeline.history.trained_model import ModelAndImages
from pipeline.models.tta import Views
from pipeline.params import EvaluateParams
from pipeline.progress import conclude
from pipeline.results import dependence, metrics, plots, rejection, sprite
from pipeline.results.arms import Arm, judge
from pipeline.results.operating_points import Answers
from pipeline.steps import members, operating_points, prediction_sets, slices, unsure
from pipeline.steps.step import Result, Step, about
from pipeline.tracking.run import Run
from pipeline.training.calibration import look_at_all
from pipeline.training.update import predict

BESIDE, VERDICT = "beside.run_id", "beside.verdict"  # tags: another evaluation, and how the two compare
LARGEST_BATCH = 512
GALLERY_IMAGES = 36
THUMBNAILS, THUMBNAIL_SIDE = 400, 64  # number of small images for the report, and their side (px)


class Evaluated(NamedTuple):
    """The result of an evaluation, and which images the network has right."""

    result: Result
    arm: Arm


def run(params: EvaluateParams, parent: Run | None = None, beside: str = "") -> Result:
    """Evaluates the training that `params` name on its test split.

    beside: another training on the same images, such as the probe that this one started from. It is evaluated first, in
    a run of its own. Then the two are compared image by image.
    """
    other = None
    if beside:
        other = _evaluate(params.model_copy(update={"run_id": beside, "register_as": ""}), parent)
    return _evaluate(params, parent, other).result


def _evaluate(params: EvaluateParams, parent: Run | None, other: Evaluated | None = None) -> Evaluated:
    trained = trained_model.find(params)
    if params.views > 1 and trained.params.flip == "off":
        raise ValueError(f"views={params.views} mirrors images, which training {trained.run_id} did not (flip=off)")
    if params.views > 1 and not trained.splits.flip:
        raise ValueError(f"views={params.views} is not for {trained.splits.name}: a mirrored digit is of no class")
    operating_points.check(trained, params)
    test_digest = trained.splits.test.digest()
    with about(trained, "evaluate", "evaluation", params, "test", parent) as step:
        step.run.tags({"test.digest": test_digest})
        result, correct = _report(step, trained, params)
        if params.register_as:
            step.run.register(params.register_as, trained.run_id, test_digest)
        groups = dependence.numbers(trained.splits.groups_of(trained.splits.test))
        arm = Arm("the probe" if trained.is_probe else "the trained network", correct[None], groups)
        verdict = [] if other is None else [_compare(step.run, other, arm)]
    # The store's messages are complete once the run has ended.
    return Evaluated(replace(result, summary="\n".join([result.summary, *step.run.messages, *verdict])), arm)


def _compare(run: Run, other: Evaluated, arm: Arm) -> str:
    """Says which of the two is better, and stores the verdict in the run of the second. The report shows it."""
    verdict = judge(other.arm, arm)
    run.tags({BESIDE: other.result.run_id, VERDICT: verdict.sentence})
    run.metrics({f"beside/{name.replace(' ', '_')}": value for name, value in verdict.numbers.items()})
    conclude(f"comparison: {verdict.sentence}")
    return verdict.sentence


def _logits(trained: ModelAndImages, model: nn.Module) -> np.ndarray:
    """The logits (N, C) float64 of the test images."""
    splits = trained.splits
    where = next(model.parameters()).device
    size = batch_size(trained.params.image_size, LARGEST_BATCH)
    logits, _ = predict(model, NormalisedBatches(splits, splits.test, size, where), trained.precision)
    return logits.double().numpy()


def _with_views(trained: ModelAndImages, views: int) -> tuple[dict[str, float], str]:
    """The accuracy with `views` views of each image, and a line about it; both empty for one view."""
    if views == 1:
        return {}, ""
    labels = trained.splits.test.labels
    correct = _logits(trained, Views(trained.classifier.model, views)).argmax(1) == labels
    numbers = metrics.accuracy(f"test/accuracy_{views}_views", correct)
    share, low, high = numbers.values()
    return numbers, f"{views} views of each image: accuracy {share:.2%} (95 % interval {low:.2%} to {high:.2%})"


def _report(step: Step, trained: ModelAndImages, params: EvaluateParams) -> tuple[Result, np.ndarray]:
    run, name = step.run, step.name
    looked, features = look_at_all(trained.classifier.model, trained.splits, trained.splits.test, trained.precision)
    logits = looked.astype(np.float64)
    probabilities = softmax(logits / trained.classifier.temperature, axis=1)
    test, classes = trained.splits.test, trained.splits.classes
    labels, predicted = test.labels, probabilities.argmax(1)
    with_views, views_line = _with_views(trained, params.views)
    group_names = trained.splits.groups_of(test)
    groups = dependence.numbers(group_names)
    summary = {**metrics.summary(labels, probabilities, params.top_k, groups), **with_views}
    summary["test/ece_uncalibrated"] = metrics.calibration(labels, softmax(logits, axis=1))[0]
    outcomes = rejection.of(probabilities, labels)
    of_unsure, unsure_line = unsure.report(run, trained.classifier.calibration, outcomes, features, name)
    answers = Answers(labels, probabilities)
    of_thresholds, thresholds_line = operating_points.report(run, trained, params, answers, groups)
    of_sets, sets_line, sets = prediction_sets.report(run, trained.classifier.calibration, answers, classes, groups)
    of_members, members_line = members.report(run, trained, probabilities, groups, partial(_logits, trained))
    summary |= of_unsure | of_sets | of_thresholds | of_members
    run.metrics(summary, model_of=trained.model_of)
    matrix = metrics.confusion(labels, predicted, len(classes))
    run.figure("confusion_matrix.png", plots.confusion_matrix(matrix, classes, normalised=False))
    run.figure("confusion_matrix_normalised.png", plots.confusion_matrix(matrix, classes, normalised=True))
    # Concatenates the columns instead of assigning one, because a class may be named "true".
    counts = [pd.DataFrame(matrix, columns=classes), pd.DataFrame({"true": classes})]
    run.table("confusion_matrix.csv", pd.concat(counts, axis=1))
    run.table("most_confused.csv", metrics.most_confused(matrix, classes))
    per_class = metrics.per_class(labels, probabilities, classes, groups)
    run.table("per_class.csv", per_class)
    curves = metrics.precision_recall(labels, probabilities, classes)
    run.table("precision_recall.csv", curves)
    occurring = per_class.dropna(subset="average_precision")
    average_precision = dict(zip(occurring["class"], occurring["average_precision"], strict=True))
    run.figure("precision_recall.png", plots.precision_recall(curves, average_precision, name))
    ece, bins = metrics.calibration(labels, probabilities)
    run.table("reliability.csv", bins)
    run.figure("reliability.png", plots.reliability(bins, ece, name))
    predictions = metrics.predictions(test.names, labels, probabilities, classes, group_names, sets)
    predictions.insert(1, "pixels", _pixel_digests(test))
    run.table("predictions.csv", predictions)
    wrong = predictions[~predictions["correct"]].sort_values("confidence", ascending=False, kind="stable")
    shown = wrong.head(GALLERY_IMAGES)
    captions = [f"{row.true} → {row.predicted} {row.confidence:.2f}" for row in shown.itertuples()]
    images = test.take(shown.index.to_numpy())
    run.figure(
        "misclassified.png",
        plots.gallery(images, captions, f"{len(shown)} of {len(wrong)} misclassified images, most confident first"),
    )
    _keep_thumbnails(run, predictions, trained)
    over = None if groups is None else dependence.share(predicted == labels, groups)
    folder = params.data_dir or trained.params.data_dir
    of_slices = slices.report(run, trained, folder, predicted == labels, groups)
    run.metrics(of_slices, model_of=trained.model_of)
    result = (
        f"test accuracy {metrics.accuracy_in_words(summary['test/accuracy'], len(test), over)}, "
        f"loss {summary['test/loss']:.4f}, macro F1 {summary['test/macro_f1']:.4f}, "
        f"balanced accuracy {summary['test/balanced_accuracy']:.2%}, "
        f"mean average precision {summary['test/mean_average_precision']:.4f}, "
        f"ECE {summary['test/ece']:.4f} ({summary['test/ece_uncalibrated']:.4f} before calibration)"
    )
    details = [line for line in (unsure_line, sets_line, thresholds_line, views_line, members_line) if line]
    of = f" of {run.link('this training', trained.run_id)}{trained.checkpoint_note}"
    concluded = step.conclude(result, summary, name=f"{name} {summary['test/accuracy']:.2%}", of=of, details=details)
    return concluded, predicted == labels


def _pixel_digests(split: Split) -> list[str]:
    """A hash of the pixels of each image, 16 hex digits."""
    blocks = np.array_split(np.arange(len(split)), -(-len(split) // DIGESTED_AT_A_TIME))
    return [hashlib.blake2b(image, digest_size=8).hexdigest() for block in blocks for image in split.take(block)]


def _keep_thumbnails(run: Run, predictions: pd.DataFrame, trained: ModelAndImages) -> None:
    chosen = sprite.choose(predictions, THUMBNAILS)
    file, places = sprite.sprite(trained.splits.test.take(chosen.index.to_numpy()), THUMBNAIL_SIDE)
    run.bytes("thumbnails.webp", file)
    described = chosen[["name", "true", "predicted", "confidence"]].reset_index(drop=True)
    run.table("thumbnails.csv", pd.concat([described, places], axis=1))
