"""Reads cross-validations: experiments that trained and evaluated each fold."""

from dataclasses import dataclass

import numpy as np

from pipeline.history import evaluation
from pipeline.history.evaluation import Evaluation
from pipeline.tracking import store

IMAGE = ["name", "true"]  # columns of predictions.csv: an image and its label
PIXEL_PARAMS = ("image_size", "resize", "crop_area", "weights")  # they decide which pixels an image has


@dataclass(frozen=True)
class CrossValidation:
    """A finished cross-validation with the evaluation of each fold, in the order of the folds."""

    run_id: str
    evaluations: list[Evaluation]

    @property
    def accuracies(self) -> np.ndarray:
        """The accuracy in each fold: (K,), in [0, 1]."""
        return np.array([each.correct.mean() for each in self.evaluations])


def find(asked: str) -> CrossValidation | None:
    """The cross-validation with the run id `asked`; None if this run is no cross-validation.

    Raises ValueError if it is not finished, or if a fold was not evaluated.
    """
    run = store.stored_run(asked, "runs")
    if run.data.tags.get("step") != "main":
        return None
    folds, fold = (int(run.data.params.get(name, 0)) for name in ("folds", "fold"))
    if not folds or fold:
        return None
    if run.info.status != "FINISHED":
        raise ValueError(f"runs: cross-validation {asked} is {run.info.status}, not FINISHED")
    found: dict[int, Evaluation] = {}
    # The newest comes first. If a fold has a probe and a training, the evaluation that counts is the later one.
    for child in store.children(asked, "evaluate"):
        if child.info.status == "FINISHED":
            (each,) = evaluation.find(str(child.info.run_id))
            found.setdefault(each.params.fold, each)
    if missing := [number for number in range(1, folds + 1) if number not in found]:
        raise ValueError(f"runs: cross-validation {asked} has no evaluation of fold {missing[0]} of {folds}")
    return CrossValidation(asked, [found[number] for number in range(1, folds + 1)])


def check_same_folds(first: CrossValidation, other: CrossValidation) -> None:
    """Raises ValueError if the two do not have the same images under the same labels in each fold."""
    pair = f"runs: cross-validations {first.run_id} and {other.run_id}"
    sizes = len(first.evaluations), len(other.evaluations)
    if sizes[0] != sizes[1]:
        raise ValueError(f"{pair} have folds={sizes[0]} and folds={sizes[1]}: compare those with the same folds")
    for place, (one, another) in enumerate(zip(first.evaluations, other.evaluations, strict=True), start=1):
        tables = (each.predictions[IMAGE].sort_values(IMAGE, ignore_index=True) for each in (one, another))
        if not next(tables).equals(next(tables)):
            raise ValueError(f"{pair} have different images or labels in fold {place}: they cannot be compared")
        scaled = [[getattr(each.params, name) for name in PIXEL_PARAMS] for each in (one, another)]
        if one.test_digest != another.test_digest and scaled[0] == scaled[1]:
            raise ValueError(f"{pair} have images of the same names with other pixels in fold {place}")
