"""Predicts images without labels: as a table in a run, or as a line per image on the terminal."""

import time
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pipeline.data import image_files
from pipeline.data.batches import batch_size
from pipeline.data.image_files import Batch, Found
from pipeline.data.tree import in_words
from pipeline.history import trained_model
from pipeline.history.trained_model import TrainedModel
from pipeline.model_files import stored_calibration
from pipeline.model_files.classifier import Answered
from pipeline.params import PredictParams
from pipeline.progress import answer, conclude, say
from pipeline.results import answers
from pipeline.results.answers import Answers, Tally
from pipeline.results.prediction_sets import PredictionSets
from pipeline.steps import prediction_sets
from pipeline.steps.step import Result, Step, tracked
from pipeline.training.calibration import Calibration

NAMED_CLASSES = 5  # at most, in the summary
LEFT_OUT = "named in left_out.csv"


def run(params: PredictParams) -> Result | None:
    """Predicts `images` in a run of its own, or answers for `photos` on the terminal, without a run."""
    if bool(params.images) == bool(params.photos):
        raise ValueError("predict takes images=<folder, photo or glob>, for a run, or else the photos to answer for")
    found = image_files.find(params.photos or [params.images])
    network = trained_model.find_model(params)
    if params.images:
        return _track(params, network, found)
    _answer(params, network, found)
    return None


def _answer(params: PredictParams, network: TrainedModel, found: Found) -> None:
    """Prints a line per image on standard output."""
    known = _calibration(network)
    sets = prediction_sets.known_sets(known, says_why_not=params.set_coverage != "auto")
    limit, coverage = known.familiar.limit if known else 0.0, sets.coverage if sets else 0.0
    is_answered = False
    _say_left_out(found.left_out)
    if found.unread:
        conclude(f"photos left out: {in_words(found.unread)}")
    for given, unreadable in _predict(network, found):
        if given is not None:
            is_answered = True
            for line in answers.lines(given, network.classifier.classes, limit, coverage):
                answer(line)
        _say_left_out(unreadable)
    if not is_answered:
        raise ValueError("none of the files is a readable image")


def _track(params: PredictParams, network: TrainedModel, found: Found) -> Result:
    name = f"{network.params.set_name} {network.params.model} prediction"
    own = {**params.model_dump(exclude={"photos"}), "run_id": network.run_id}
    with tracked("predict", name, own, _tags(params, network)) as step:
        run = step.run
        known = _calibration(network)
        sets = prediction_sets.known_sets(known, says_why_not=params.set_coverage != "auto")
        if known is not None:
            run.metrics(stored_calibration.numbers(known))
        classes = network.classifier.classes
        tally, left_out = Tally(len(classes), params.num_shown), list(found.left_out)
        started = time.perf_counter()
        try:
            with run.growing_table("predictions.csv") as add:
                for given, unreadable in _predict(network, found):
                    left_out += unreadable
                    if given is not None:
                        add(answers.table(given, classes, params.top_k))
                        tally.add(given)
        finally:
            if left_out:
                run.table("left_out.csv", pd.DataFrame(left_out, columns=["file", "reason"]))
        run.metrics({"predict/images_per_second": tally.counts.sum() / (time.perf_counter() - started)})
        if tally.shown is None:
            raise ValueError(f"none of the {len(left_out)} files is a readable image: left_out.csv names each")
        if params.num_shown:
            # Imported late, because drawing and explaining take longer to import than the answer for one photo takes.
            from pipeline.steps import contact_sheet

            contact_sheet.log(run, network, tally.shown, params.maps)
        passed_over = {**found.skipped, **found.unread, LEFT_OUT: len(left_out)}
        return _conclude(step, network, known, sets, tally, passed_over)


def _predict(network: TrainedModel, found: Found) -> Iterator[tuple[Answers | None, list[tuple[str, str]]]]:
    """Answers batch by batch, if there are any, and the files of each batch that cannot be read, with the reason."""
    classifier = network.classifier
    described = classifier.description
    batches = image_files.read(
        found.paths,
        described.image_size,
        batch_size(described.image_size),
        resize=described.resize,
        interpolation=described.interpolation,
        margin=described.margin,
        title="predicting",
    )
    for batch in batches:
        given = None
        if len(batch.images):
            answered = classifier.answer(batch.images, network.precision)
            given = _with_images(batch, answered)
        yield given, batch.left_out


def _with_images(batch: Batch, answered: Answered) -> Answers:
    paths = np.array(batch.paths, dtype=object)
    marks = answered.unsure, answered.distances, answered.unlike, answered.sets
    return Answers(paths, batch.images, answered.probabilities, *marks)


def _calibration(network: TrainedModel) -> Calibration | None:
    """The calibration of the network. Without one: None, and prints why."""
    known = network.classifier.calibration
    if known is None:
        was_validated = trained_model.was_validated(network.run_id)
        why = "is of an earlier version" if was_validated else "has no validation split"
        say(f"answers are neither calibrated nor compared with the training images: training {network.run_id} {why}")
    return known


def _tags(params: PredictParams, network: TrainedModel) -> dict[str, str]:
    of = {"dataset": network.params.dataset, "model": network.params.model}
    return {**of, "train.run_id": network.run_id, "checkpoint": params.checkpoint}


def _quality(known: Calibration) -> str:
    """The quality of a calibration, in words."""
    fitted = known.temperature
    if fitted is None:
        return "no temperature, as validation held no error"
    return (
        f"temperature {fitted.value:.3f}, ECE {fitted.ece_before:.4f} before and {fitted.ece_after:.4f} after, "
        f"on the {fitted.num_images:,} validation images it was fitted on"
    )


def _threshold(known: Calibration) -> str:
    """The threshold for unsure answers, in words."""
    if not np.isfinite(known.threshold):
        return f"all: at any threshold, more than {known.most_error:.1%} were wrong on validation"
    return f"below {known.threshold:.1%}: from there on, at most {known.most_error:.1%} were wrong on validation"


def _conclude(
    step: Step,
    network: TrainedModel,
    known: Calibration | None,
    sets: PredictionSets | None,
    tally: Tally,
    passed_over: Mapping[str, int],
) -> Result:
    table = pd.DataFrame({"class": network.classifier.classes, "images": tally.counts})
    table = table[table["images"] > 0].sort_values("images", ascending=False, kind="stable")
    step.run.table("classes.csv", table)
    numbers = {"predict/images": float(table["images"].sum()), "predict/left_out": passed_over[LEFT_OUT]}
    first = [f"{count:,} as {label}" for label, count in table.head(NAMED_CLASSES).itertuples(index=False)]
    others = f" and {len(table) - len(first)} more classes" if len(table) > len(first) else ""
    parts = [f"{table['images'].sum():,} images: {', '.join(first)}{others}"]
    if known is None:
        parts.append("not calibrated")
    else:
        numbers |= {"predict/unsure": tally.num_unsure, "predict/unlike": tally.num_unlike}
        unsure = f"{tally.num_unsure:,} unsure ({_threshold(known)})"
        parts += [unsure, f"{tally.num_unlike:,} unlike the training images", _quality(known)]
    if sets is not None:
        numbers["predict/set_size"] = tally.num_in_sets / float(tally.counts.sum())
        parts.append(f"sets of {numbers['predict/set_size']:.2f} classes on average, for {sets.coverage:.1%} coverage")
    if counts := in_words(passed_over):
        parts.append(f"left out: {counts}")
    result = "; ".join(parts)
    step.run.metrics(numbers)
    concluded = step.conclude(result, numbers, of=f" with `{network.run_id}`")
    step.say_where("predictions.csv and the other files are")
    return concluded


def _say_left_out(left_out: list[tuple[str, str]]) -> None:
    for path, reason in left_out:
        conclude(f"{path}: {reason}")
