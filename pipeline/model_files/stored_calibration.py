"""The calibration of a network in its weights file: some tensors beside the weights, and a part of the description."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from pipeline.results.novelty import Familiar
from pipeline.results.prediction_sets import PredictionSets
from pipeline.results.rejection import Outcomes
from pipeline.results.temperature import HIGHEST, LOWEST, Temperature
from pipeline.training.calibration import Calibration

KEY = "calibration"  # in the description
TRUE_PROBABILITY = "probability_of_true"  # name of the tensor that sets of classes are made from
PREFIX = "calibration/"  # of its tensors' names; no module of a network has a slash in its name


class _Numbers(BaseModel):
    """The numbers that belong to the tensors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: Temperature | None
    scale: float = Field(gt=0)
    limit: float = Field(ge=0)
    most_error: float = Field(gt=0, lt=1)
    # A file of an earlier version has neither.
    set_coverage: float | None = Field(None, gt=0, lt=1)
    set_threshold: float | None = Field(None, ge=0, le=1)


def tensors(calibration: Calibration) -> dict[str, Tensor]:
    """The arrays of `calibration`, by the names that they have in a weights file."""
    familiar, outcomes = calibration.familiar, calibration.outcomes
    arrays = {"means": familiar.means, "directions": familiar.directions}
    arrays |= {"confidence": outcomes.confidence, "correct": outcomes.correct}
    if calibration.sets is not None:
        arrays[TRUE_PROBABILITY] = calibration.sets.probabilities
    return {PREFIX + name: torch.from_numpy(array) for name, array in arrays.items()}


def described(calibration: Calibration) -> dict[str, Any]:
    """The numbers of `calibration`, as plain data."""
    fitted, familiar = calibration.temperature, calibration.familiar
    limits = {"scale": familiar.scale, "limit": familiar.limit, "most_error": calibration.most_error}
    if (sets := calibration.sets) is not None:
        limits |= {"set_coverage": sets.coverage, "set_threshold": sets.threshold}
    return {KEY: {"temperature": None if fitted is None else asdict(fitted), **limits}}


def split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a weights file, split: the network's, and its calibration's."""
    own = {name: tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    return {name: tensor for name, tensor in state.items() if name not in own}, own


def parse(own: Mapping[str, Tensor], description: Mapping[str, Any]) -> Calibration | None:
    """The calibration in a file with the tensors `own` and `description`; None if the file has none.

    Raises ValueError if the two do not fit together.
    """
    if KEY not in description and not own:
        return None
    try:
        numbers = _Numbers.model_validate(description[KEY])
        if numbers.temperature is not None and not LOWEST <= numbers.temperature.value <= HIGHEST:
            raise ValueError(f"its temperature is not between {LOWEST} and {HIGHEST}")
        means, directions = own[f"{PREFIX}means"].numpy(), own[f"{PREFIX}directions"].numpy()
        if not means.dtype == directions.dtype == np.float32:
            raise ValueError("its tensors are not float32")
        if means.ndim != 2 or directions.ndim != 2 or means.shape[1] != len(directions) or not len(means):
            raise ValueError("the shapes of its tensors do not match")
        confidence, correct = own[f"{PREFIX}confidence"].numpy(), own[f"{PREFIX}correct"].numpy()
        if confidence.dtype != np.float64 or correct.dtype != np.bool_:
            raise ValueError("its outcomes are not float64 and bool")
        if confidence.ndim != 1 or confidence.shape != correct.shape or not len(correct):
            raise ValueError("the shapes of its outcomes do not match")
        sets = _sets(own, numbers)
    except (ValidationError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"its calibration cannot be used: {reason}") from None
    familiar = Familiar(means, directions, numbers.scale, numbers.limit)
    return Calibration(numbers.temperature, familiar, Outcomes(confidence, correct), numbers.most_error, sets)


def _sets(own: Mapping[str, Tensor], numbers: _Numbers) -> PredictionSets | None:
    """The sets of classes of a file; None if it is of an earlier version. Raises ValueError if they cannot be used."""
    stored = own.get(PREFIX + TRUE_PROBABILITY)
    if stored is None and numbers.set_coverage is None and numbers.set_threshold is None:
        return None
    if stored is None or numbers.set_coverage is None or numbers.set_threshold is None:
        raise ValueError("a part of its sets of classes is missing")
    probabilities = stored.numpy()
    if probabilities.dtype != np.float64 or probabilities.shape != own[f"{PREFIX}confidence"].shape:
        raise ValueError("its probabilities of true classes do not match its outcomes")
    return PredictionSets(numbers.set_coverage, numbers.set_threshold, probabilities)


def numbers(calibration: Calibration) -> dict[str, float]:
    """The numbers of a calibration, by metric name."""
    fitted = {} if calibration.temperature is None else asdict(calibration.temperature)
    fitted["temperature"] = fitted.pop("value", None)
    values = {**fitted, "distance_limit": calibration.familiar.limit}
    if np.isfinite(calibration.threshold):
        values["threshold"] = calibration.threshold
    values["coverage"] = calibration.outcomes.numbers(calibration.threshold)["coverage"]
    if calibration.sets is not None and calibration.sets.is_known:
        values["set_threshold"] = calibration.sets.threshold
    return {f"weights/{name}": value for name, value in values.items() if value is not None}
