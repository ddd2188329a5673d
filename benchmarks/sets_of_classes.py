"""How often do sets of classes hold the class of new images? Simulated networks, for benchmarks.coverage."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.special import softmax

from pipeline.results import prediction_sets, temperature

CLASSES, NEW_IMAGES = 10, 2_000
TOO_SURE = 3.0  # the factor by which the logits are too large
FAR_BELOW = 0.05  # a validation set misleads if its sets reach so much less than wanted


def sets_of_classes(
    num_valid: int, coverage: float, alike: float = 0, size: int = 1
) -> Callable[[np.random.Generator], Mapping[str, float]]:
    """The coverage on new images, for sets and a temperature from the same validation images, as in the pipeline.

    In groups of `size`, all images have the same chance, and the share `alike` of the variance of their logits.
    """

    def answered(draw: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        groups = np.arange(number) // size
        common, own = (draw.normal(size=(count, CLASSES)) for count in (groups[-1] + 1, number))
        logits = 2 * (np.sqrt(alike) * common[groups] + np.sqrt(1 - alike) * own)
        chance = draw.random(groups[-1] + 1)[groups]
        labels = (chance[:, None] > softmax(logits, axis=1).cumsum(axis=1)[:, :-1]).sum(axis=1)
        return TOO_SURE * logits, labels

    def trial(draw: np.random.Generator) -> dict[str, float]:
        logits, labels = answered(draw, num_valid)
        fitted = temperature.fit(logits, labels)
        divisor = 1.0 if fitted is None else fitted.value
        sets = prediction_sets.fit(softmax(logits / divisor, axis=1)[np.arange(num_valid), labels], coverage)
        new, true = answered(draw, NEW_IMAGES)
        inside = sets.inside(softmax(new / divisor, axis=1))
        reached = prediction_sets.numbers(inside, true)
        return {
            "reached on average": reached["test/set_coverage"],
            "more than 5 points too little": reached["test/set_coverage"] < coverage - FAR_BELOW,
            "sets of one class": reached["test/single_sets"],
        }

    return trial
