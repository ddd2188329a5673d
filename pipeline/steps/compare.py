"""Compares trainings on the same test images, as a tracked step: which is better, where, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch

from pipeline import models
from pipeline.explain import attribution
from pipeline.history import evaluation, trained_model
from pipeline.history.evaluation import Evaluation
from pipeline.history.trained_model import ModelAndImages
from pipeline.params import CompareParams, TrainedModelParams, TrainParams, as_text
from pipeline.progress import say
from pipeline.results import plots
from pipeline.results.arms import Arm, Verdict, judge, network_test, per_class
from pipeline.settings import FREE_TO_CHANGE
from pipeline.steps.step import Result, Step, tracked
from pipeline.text import unmarked, visible
from pipeline.tracking.run import Run

MAX_ARMS = 6  # the number of colours that colour-blind people can tell apart
ALPHA = 0.05
TITLE_CHARACTERS = 120
OF_NO_RECIPE = FREE_TO_CHANGE | {"watch_images"}
DATA = "data.digest"
OF_THE_PLACE = ("git.commit", "git.dirty", "device", "precision", DATA)  # tags of a training that get a row


@dataclass(frozen=True)
class Compared:
    """An arm with its evaluations and a name that distinguishes it from the others."""

    arm: Arm
    runs: Sequence[Evaluation]
    name: str


def run(params: CompareParams) -> Result:
    """Finds the evaluations of `params.runs`, and compares all others with the first."""
    found = [each for asked in params.runs for each in evaluation.find(asked)]
    _check(found)
    first, *others = compared = _arms(found)
    title = f"{found[0].params.dataset}: {' against '.join(each.name[3:] for each in compared)}"[:TITLE_CHARACTERS]
    tags = {"dataset": found[0].params.dataset, "test.digest": found[0].test_digest}
    with tracked("compare", title, params.model_dump(), tags) as step:
        run = step.run
        run.tags({f"arm.{each.arm.name}": " ".join(one.run_id for one in each.runs) for each in compared})
        run.metrics({f"compare/{each.arm.name}/accuracy": each.arm.accuracies.mean() for each in compared})
        _describe_arms(run, compared)
        verdicts = [_compare(run, first, other, ALPHA / len(others), params) for other in others]
        return _conclude(step, compared, verdicts)


def _check(found: Sequence[Evaluation]) -> None:
    """Raises ValueError for a single evaluation, and for evaluations on different test images."""
    first, *others = found
    if not others:
        raise ValueError(f"runs: {first.run_id} is one evaluation, with nothing to compare it with")
    named = [each.run_id for each in found]
    if repeated := [run_id for run_id in named if named.count(run_id) > 1]:
        raise ValueError(
            f"runs: evaluation {repeated[0]} is named more than once, as itself or by a run that leads to it"
        )
    same = ["name", "true"]
    for other in others:
        if other.test_digest != first.test_digest:
            raise ValueError(
                f"evaluations {first.run_id} and {other.run_id} are of different test images, or of other "
                f"pixels of them (image_size, resize, crop_area; digests {first.test_digest}, {other.test_digest})"
            )
        if not other.predictions[same].equals(first.predictions[same]):
            raise ValueError(f"predictions.csv of {first.run_id} and {other.run_id} do not name the same images")


def _arms(found: Sequence[Evaluation]) -> list[Compared]:
    """One arm per recipe, in the order of `found`. If all evaluations have the same recipe, each is an arm."""
    groups: dict[tuple[str, ...], list[Evaluation]] = {}
    for each in found:
        groups.setdefault(tuple(_recipe(each).values()), []).append(each)
    series = list(groups.values()) if len(groups) > 1 else [[each] for each in found]
    if len(series) > MAX_ARMS:
        raise ValueError(f"runs: {len(series)} recipes; compare {MAX_ARMS} at a time at most")
    for same in series:
        if len({each.params.seed for each in same}) < len(same):
            raise ValueError(f"runs: {same[0].train_run_id} is of the same recipe and seed as another beside it")
    differing = _differing([same[0] for same in series])
    of_images = evaluation.groups_of(found)
    return [
        Compared(
            Arm(letter, np.array([each.correct for each in same]), of_images),
            same,
            f"{letter}: " + " ".join(f"{name}={values[place]}" for name, values in differing.items()),
        )
        for place, (letter, same) in enumerate(zip("ABCDEF", series, strict=False))
    ]


def _recipe(each: Evaluation) -> dict[str, str]:
    """Everything that distinguishes two trainings, except the seed: parameters, images, and evaluated checkpoint."""
    names = [name for name in TrainParams.model_fields if name not in OF_NO_RECIPE | {"seed"}]
    shown = {name: visible(as_text(getattr(each.params, name))) for name in names}
    return {**shown, "checkpoint": each.checkpoint, DATA: visible(each.tags.get(DATA, ""))}


def _differing(firsts: Sequence[Evaluation]) -> dict[str, list[str]]:
    """The parameters that differ between the arms, with the value of each arm."""
    rows = [_recipe(each) for each in firsts]
    found = {name: [row[name] for row in rows] for name in rows[0] if len({row[name] for row in rows}) > 1}
    named = [name for name in found if name != DATA]  # a parameter such as image_size also changes the images
    if len({tuple(row[name] for name in named) for row in rows}) == len(rows):
        found.pop(DATA, None)
    return found or {"seed": [str(each.params.seed) for each in firsts]}


def _describe_arms(run: Run, compared: Sequence[Compared]) -> None:
    """Logs the arms, the parameters that differ, and calibration and curves side by side."""
    firsts = [each.runs[0] for each in compared]
    differing = _differing(firsts)
    for name in OF_THE_PLACE:
        values = [visible(each.tags.get(name, "")) for each in firsts]
        if len(set(values)) > 1:
            differing[name] = values
    letters = [each.arm.name for each in compared]
    table = pd.DataFrame.from_dict(differing, orient="index", columns=letters)
    run.table("parameters.csv", table.rename_axis("parameter").reset_index())
    members = [(each, one) for each in compared for one in each.runs]
    run.table("arms.csv", pd.DataFrame([_member(each, one) for each, one in members]))
    bins = {each.name: _pooled([one.reliability for one in each.runs]) for each in compared}
    run.table("calibration.csv", pd.concat([table.assign(arm=name[0]) for name, table in bins.items()]))
    run.figure("calibration.png", plots.calibrations(bins, f"Calibration: {_eces(compared)}"))
    curves = [evaluation.epochs(one.train_run_id).assign(arm=each.name, run=one.run_id) for each, one in members]
    run.figure("curves.png", plots.curves_beside(pd.concat(curves), "Training and validation"))


def _member(each: Compared, one: Evaluation) -> dict[str, object]:
    numbers = {name: one.metrics.get(f"test/{name}", np.nan) for name in ("accuracy", "loss", "macro_f1", "ece")}
    who = {"arm": each.arm.name, "seed": one.params.seed, "training": one.train_run_id, "evaluation": one.run_id}
    return {**who, **numbers}


def _pooled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of bins for several networks: means over all their images."""
    count = np.sum([table["count"] for table in tables], axis=0)
    sums = {
        name: np.nansum([table[name] * table["count"] for table in tables], axis=0)
        for name in ("confidence", "accuracy")
    }
    # An empty bin gives NaN.
    means = {name: total / np.where(count, count, np.nan) for name, total in sums.items()}
    return tables[0].assign(count=count, **means)


def _eces(compared: Sequence[Compared]) -> str:
    means = [np.mean([one.metrics.get("test/ece", np.nan) for one in each.runs]) for each in compared]
    return ", ".join(f"{each.arm.name} {mean:.4f}" for each, mean in zip(compared, means, strict=True)) + " (ECE)"


def _compare(run: Run, first: Compared, other: Compared, alpha: float, params: CompareParams) -> Verdict:
    """Compares `other` with `first`, logs the numbers and tables, and returns the verdict."""
    a, b = first.arm, other.arm
    verdict = judge(a, b, alpha, params.seed)
    run.metrics({f"compare/{b.name}/{name}": value for name, value in verdict.numbers.items()})
    labels = first.runs[0].predictions["true"].to_numpy()
    run.table(f"per_class_{b.name}.csv", per_class(labels, a, b, params.seed))
    rows = [
        {a.name: one.run_id, b.name: another.run_id, **network_test(correct, others, a.groups)}
        for (one, correct), (another, others) in product(
            zip(first.runs, a.correct, strict=True), zip(other.runs, b.correct, strict=True)
        )
    ]
    run.table(f"mcnemar_{b.name}.csv", pd.DataFrame(rows))
    if params.num_images:
        _show_disagreement(run, first, other, params)
    return verdict


def _show_disagreement(run: Run, first: Compared, other: Compared, params: CompareParams) -> None:
    """Logs a sheet of images that only one of the arms' first networks has right, with the maps of both networks."""
    pair = {each.arm.name: each.runs[0] for each in (first, other)}
    sides = _disagreements(*(each.predictions for each in pair.values()))
    shown = [side[: params.num_images] for side in sides]
    rows = np.concatenate(shown)
    if not len(rows):
        return
    try:
        found = [_find(each, params) for each in pair.values()]
    except ValueError as error:
        say(f"no sheet of disagreements: {error}")
        return
    images = found[0].splits.test.take(rows)
    panels = [
        _panel(letter, training, images, each.predictions["predicted"].iloc[rows], params)
        for training, (letter, each) in zip(found, pair.items(), strict=True)
    ]
    counts = (
        f"{len(some)} of {len(side)} that only {letter}" for some, side, letter in zip(shown, sides, pair, strict=True)
    )
    title = f"Images that one has right: {', '.join(counts)} has; surest errors first; maps of the predicted class"
    captions = [_caption(pair, row) for row in rows]
    run.figure(f"disagreements_{other.arm.name}.png", plots.explanations(images, panels, captions, title))


def _disagreements(one: pd.DataFrame, other: pd.DataFrame) -> list[np.ndarray]:
    """Rows that only `one` has right, and rows that only `other` has right; the most confident errors first."""
    found = []
    for right, wrong in ((one, other), (other, one)):
        rows = np.flatnonzero((right["true"] == right["predicted"]) & (wrong["true"] != wrong["predicted"]))
        found.append(rows[np.argsort(-wrong["confidence"].to_numpy()[rows], kind="stable")])
    return found


def _find(each: Evaluation, params: CompareParams) -> ModelAndImages:
    return trained_model.find(params.to(TrainedModelParams, run_id=each.train_run_id, checkpoint=each.checkpoint))


def _panel(
    letter: str, trained: ModelAndImages, images: np.ndarray, predicted: pd.Series, params: CompareParams
) -> tuple[str, np.ndarray]:
    """A heading, and maps (B, H, W) in [0, 1]: how much each pixel of `images` speaks for the predicted class."""
    places = {name: place for place, name in enumerate(trained.classifier.classes)}
    if unknown := set(predicted) - places.keys():
        raise ValueError(f"predictions of {trained.run_id} name a class that it does not know: {min(unknown)}")
    model = trained.classifier.model
    inputs = trained.classifier.normalise(torch.from_numpy(images).to(next(model.parameters()).device))
    targets = torch.tensor([places[name] for name in predicted])
    where = models.cam_target(trained.params.model, model)
    method = attribution.choose(params.method, model, where, inputs)
    return f"{letter}, {method}", attribution.class_maps(model, where, inputs, targets, method)


def _caption(pair: Mapping[str, Evaluation], row: int) -> str:
    said = {letter: each.predictions.iloc[row] for letter, each in pair.items()}
    lines = [f"{letter}: {line['predicted']} {line['confidence']:.2f}" for letter, line in said.items()]
    return "\n".join([f"true {next(iter(said.values()))['true']}", *lines])


def _conclude(step: Step, compared: Sequence[Compared], verdicts: Sequence[Verdict]) -> Result:
    sentences = "\n".join(verdict.sentence for verdict in verdicts)
    if len(verdicts) > 1:
        sentences += (
            f"\n{len(verdicts)} comparisons, each at the level {ALPHA:g}/{len(verdicts)} = {ALPHA / len(verdicts):.3g}"
        )
    names = "\n".join(each.name for each in compared)
    result = step.conclude(sentences, more=f"\n{unmarked(names)}", before=f"{names}\n")
    step.run.describe(step.name, f"**Comparison** — {unmarked(sentences)}\n{unmarked(names)}".replace("\n", "\n\n"))
    return result
