"""Evaluates a network on the test split, as a tracked step."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from pipeline.data import Split
from pipeline.data.splits import DIGESTED_AT_A_TIME
from pipeline.history import trained_model
from pipeline.history.trained_model import ModelAndImages
from pipeline.models.tta import Views
from pipeline.params import EvaluateParams
from pipeline.progress import conclude
from pipeline.results import dependence, metrics, plots, sprite
from pipeline.results.arms import Arm, judge
from pipeline.results.operating_points import Answers
from pipeline.steps import members, operating_points, prediction_sets, rejection, slices
from pipeline.steps.step import Result, Step, about
from pipeline.tracking.run import Run
from pipeline.training.calibration import split_logits_and_features

BESIDE, VERDICT = "beside.run_id", "beside.verdict"  # tags: another evaluation, and how the two compare
GALLERY_IMAGES = 36
THUMBNAILS, THUMBNAIL_SIDE = 400, 64  # number of small images for the report, and their side (px)


class Measured(NamedTuple):
    """The measurements on the test images: metrics, lines below the result, and the set of classes of each as text."""

    numbers: dict[str, float]
    details: list[str]
    sets: list[str]  # N, or empty if there are none


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
        raise ValueError(f"views={params.views} is not for {trained.splits.name}: a mirrored image may be of no class")
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


def _with_views(trained: ModelAndImages, views: int) -> tuple[dict[str, float], str]:
    """The accuracy with `views` views of each image, and a line about it; both empty for one view."""
    if views == 1:
        return {}, ""
    labels = trained.splits.test.labels
    correct = trained.test_logits(Views(trained.classifier.model, views)).argmax(1).numpy() == labels
    numbers = metrics.accuracy(f"test/accuracy_{views}_views", correct)
    share, low, high = numbers.values()
    return numbers, f"{views} views of each image: accuracy {share:.2%} (95 % interval {low:.2%} to {high:.2%})"


def _report(step: Step, trained: ModelAndImages, params: EvaluateParams) -> tuple[Result, np.ndarray]:
    """Logs what the network answers for the test images. Returns the result, and whether each is right, (N,) bool."""
    run, test, classes = step.run, trained.splits.test, trained.splits.classes
    looked, features = split_logits_and_features(trained.classifier.model, trained.splits, test, trained.precision)
    logits = looked.astype(np.float64)
    answers = Answers(test.labels, softmax(logits / trained.classifier.temperature, axis=1))
    correct = answers.probabilities.argmax(1) == test.labels
    group_names = trained.splits.groups_of(test)
    groups = dependence.numbers(group_names)
    numbers, details, sets = _measure(step, trained, params, logits, answers, features, groups)
    run.metrics(numbers, model_of=trained.model_of)
    _log_confusion(run, answers, classes)
    _log_classes(run, step.name, answers, classes, groups)
    ece, bins = metrics.calibration(*answers)
    run.table("reliability.csv", bins)
    run.figure("reliability.png", plots.reliability(bins, ece, step.name))
    predictions = metrics.predictions(test.names, *answers, classes, group_names, sets)
    predictions.insert(1, "pixels", _pixel_digests(test))
    run.table("predictions.csv", predictions)
    _log_errors(run, predictions, test)
    _keep_thumbnails(run, predictions, trained)
    folder = params.data_dir or trained.params.data_dir
    run.metrics(slices.report(run, trained, folder, correct, groups), model_of=trained.model_of)
    name = f"{step.name} {numbers['test/accuracy']:.2%}"
    of = f" of {run.link('this training', trained.run_id)}{trained.checkpoint_note}"
    over = None if groups is None else dependence.share(correct, groups)
    return step.conclude(_in_words(numbers, len(test), over), numbers, name=name, of=of, details=details), correct


def _measure(
    step: Step,
    trained: ModelAndImages,
    params: EvaluateParams,
    logits: np.ndarray,
    answers: Answers,
    features: np.ndarray,
    groups: np.ndarray | None,
) -> Measured:
    """Measures the `answers`, and logs the tables and figures of unsure answers, thresholds, sets and members.

    logits: (N, C) float64, before calibration. features: (N, D). groups: (N,) int64, or None.
    """
    run, calibration, classes = step.run, trained.classifier.calibration, trained.splits.classes
    with_views, views_line = _with_views(trained, params.views)
    numbers = {**metrics.summary(*answers, params.top_k, groups), **with_views}
    numbers["test/ece_uncalibrated"] = metrics.calibration(answers.labels, softmax(logits, axis=1))[0]
    of_unsure, unsure_line = rejection.report(run, calibration, answers, features, step.name)
    of_thresholds, thresholds_line = operating_points.report(run, trained, params, answers, groups)
    of_sets, sets_line, sets = prediction_sets.report(run, calibration, answers, classes, groups)
    of_members, members_line = members.report(run, trained, answers.probabilities, groups)
    details = [line for line in (unsure_line, sets_line, thresholds_line, views_line, members_line) if line]
    return Measured(numbers | of_unsure | of_sets | of_thresholds | of_members, details, sets)


def _log_confusion(run: Run, answers: Answers, classes: tuple[str, ...]) -> None:
    """Logs which classes are taken for which."""
    matrix = metrics.confusion(answers.labels, answers.probabilities.argmax(1), len(classes))
    run.figure("confusion_matrix.png", plots.confusion_matrix(matrix, classes, normalised=False))
    run.figure("confusion_matrix_normalised.png", plots.confusion_matrix(matrix, classes, normalised=True))
    # Concatenates the columns instead of assigning one, because a class may be named "true".
    counts = [pd.DataFrame(matrix, columns=classes), pd.DataFrame({"true": classes})]
    run.table("confusion_matrix.csv", pd.concat(counts, axis=1))
    run.table("most_confused.csv", metrics.most_confused(matrix, classes))


def _log_classes(run: Run, name: str, answers: Answers, classes: tuple[str, ...], groups: np.ndarray | None) -> None:
    """Logs precision and recall of each class, and their curves."""
    per_class = metrics.per_class(*answers, classes, groups)
    run.table("per_class.csv", per_class)
    curves = metrics.precision_recall(*answers, classes)
    run.table("precision_recall.csv", curves)
    occurring = per_class.dropna(subset="average_precision")
    average_precision = dict(zip(occurring["class"], occurring["average_precision"], strict=True))
    run.figure("precision_recall.png", plots.precision_recall(curves, average_precision, name))


def _log_errors(run: Run, predictions: pd.DataFrame, test: Split) -> None:
    """Logs a sheet of the misclassified images, the most confident ones first."""
    wrong = predictions[~predictions["correct"]].sort_values("confidence", ascending=False, kind="stable")
    shown = wrong.head(GALLERY_IMAGES)
    captions = [f"{row.true} → {row.predicted} {row.confidence:.2f}" for row in shown.itertuples()]
    title = f"{len(shown)} of {len(wrong)} misclassified images, most confident first"
    run.figure("misclassified.png", plots.gallery(test.take(shown.index.to_numpy()), captions, title))


def _in_words(numbers: Mapping[str, float], num_images: int, over: dependence.Share | None) -> str:
    return (
        f"test accuracy {metrics.accuracy_in_words(numbers['test/accuracy'], num_images, over)}, "
        f"loss {numbers['test/loss']:.4f}, macro F1 {numbers['test/macro_f1']:.4f}, "
        f"balanced accuracy {numbers['test/balanced_accuracy']:.2%}, "
        f"mean average precision {numbers['test/mean_average_precision']:.4f}, "
        f"ECE {numbers['test/ece']:.4f} ({numbers['test/ece_uncalibrated']:.4f} before calibration)"
    )


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
