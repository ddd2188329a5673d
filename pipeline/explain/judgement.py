"""Judges whether the maps of a method mean anything: by two measures, against controls, and by randomised weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor, nn

from pipeline.explain import faithfulness, insertion, randomisation
from pipeline.explain.attribution import class_maps, grid_size
from pipeline.explain.faithfulness import Faithfulness
from pipeline.models import CamTarget


@dataclass(frozen=True)
class Judgement:
    """Measurements of maps, as tables. Errors are standard errors over the images, NaN for a single image."""

    maps: dict[str, np.ndarray]  # by source: the judged method first, two controls, other methods; (B, H, W) each
    curves: pd.DataFrame  # source, order, fraction, confidence: mean confidence as pixels are removed
    scores: pd.DataFrame  # source, faithfulness, standard_error, insertion, insertion_error
    randomisation: pd.DataFrame  # part, similarity, standard_error: of maps when this part and all after it are random
    agreement: float  # in [0, 1]: how often both measures prefer the same source
    agreement_error: float


def judge(
    where: Callable[[nn.Module], CamTarget],
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    methods: Sequence[str],
    seed: int,
) -> Judgement:
    """Judges the maps of `methods[0]` against a random map, a network of random weights, and the other methods.

    `where` says, for `model` and its copies, where maps are read. `images` (B, 3, H, W) are as the model takes them,
    `targets` (B,) int64. The grid of the maps must have more than one cell.
    """

    def maps_of(network: nn.Module, method: str) -> np.ndarray:
        return class_maps(network, where(network), images, targets, method)

    method, *others = methods
    grid = grid_size(model, where(model), images)
    maps = {
        method: maps_of(model, method),
        "random map": faithfulness.random_maps((len(images), *images.shape[2:]), seed, grid),
        "random weights": maps_of(randomisation.randomised_copy(model, seed), method),
        **{other: maps_of(model, other) for other in others},
    }
    removed = {source: faithfulness.measure(model, images, targets, each, seed=seed) for source, each in maps.items()}
    inserted = {source: insertion.scores(model, images, targets, each, seed=seed) for source, each in maps.items()}
    cascade = [
        (part, *mean_and_error(randomisation.similarity(maps[method], maps_of(network, method))))
        for part, network in randomisation.cascade(model, seed)
    ]
    rows = [(source, *mean_and_error(removed[source].scores), *mean_and_error(inserted[source])) for source in maps]
    agreement = insertion.agreement(
        np.stack([each.scores for each in removed.values()]), np.stack([*inserted.values()])
    )
    return Judgement(
        maps,
        pd.concat(_curves(source, result) for source, result in removed.items()),
        pd.DataFrame(rows, columns=["source", "faithfulness", "standard_error", "insertion", "insertion_error"]),
        pd.DataFrame(cascade, columns=["part", "similarity", "standard_error"]),
        *mean_and_error(agreement),
    )


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean over the images and its standard error, which is NaN for a single image."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
    return float(values.mean()), error


def _curves(source: str, result: Faithfulness) -> pd.DataFrame:
    orders = {
        "most relevant first": result.most_relevant_first,
        "least relevant first": result.least_relevant_first,
    }
    return pd.concat(
        pd.DataFrame({"source": source, "order": order, "fraction": result.fractions, "confidence": each.mean(axis=0)})
        for order, each in orders.items()
    )
