"""Two recipes, a network or several of each, on the same images -> which is better, and how sure that is."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results import paired_tests, seeds
from pipeline.results.paired_tests import Difference

LEAST_IMAGES = 20  # of a class: of fewer a percentile bootstrap leaves 0 out by chance too often


@dataclass(frozen=True)
class Arm:
    """R networks of one recipe, which differ in their seed alone, on the same N images."""

    letter: str
    correct: np.ndarray  # (R, N) bool

    @property
    def accuracies(self) -> np.ndarray:
        """(R,), in [0, 1]."""
        return np.asarray(self.correct.mean(axis=1))

    @property
    def scores(self) -> np.ndarray:
        """(N,): the share of the networks that have an image right."""
        return np.asarray(self.correct.mean(axis=0))

    @property
    def description(self) -> str:
        """The arm with its accuracy, in words."""
        count = len(self.correct)
        number = f"{self.accuracies.mean():.2%}"
        return f"{self.letter} {number}" + (f" (mean of {count} seeds)" if count > 1 else "")


class Verdict(NamedTuple):
    """What one sentence can say of two arms, and the numbers behind it."""

    sentence: str
    numbers: dict[str, float]


def judge(a: Arm, b: Arm, alpha: float = 0.05, seed: int = 0) -> Verdict:
    """Whether `b` is better than `a` or worse, at level `alpha`: over images, or over seeds where there are several.

    Numbers: `difference` in accuracy, `over_images_low` and `_high`; of one network each McNemar's `only_<letter>`
    (images) and `p_value`; of several each `over_seeds_low`, `over_seeds_high` and `detectable`. None of them is NaN.
    """
    over_images = paired_tests.difference(a.scores, b.scores, 1 - alpha, seed)
    numbers = {
        "difference": over_images.value,
        "over_images_low": over_images.low,
        "over_images_high": over_images.high,
    }
    fewest, most = sorted((len(a.correct), len(b.correct)))
    how = _of_networks if most == 1 else _of_recipes if fewest > 1 else _of_unequal
    verdict = how(a, b, over_images, alpha)
    found = {**numbers, **verdict.numbers}
    beginning = (
        f"{b.description} against {a.description} on {len(a.scores)} test images: {100 * over_images.value:+.2f} points"
    )
    return Verdict(
        f"{beginning} ({verdict.sentence}", {name: value for name, value in found.items() if not math.isnan(value)}
    )


def per_class(labels: np.ndarray, a: Arm, b: Arm, seed: int = 0) -> pd.DataFrame:
    """A row per class of `labels` (N,): class, images, accuracy of each, difference, low, high, better.

    The 95 % intervals are over the images of that class, blank where these have all the same difference; `better` names
    an arm, as it does by chance alone in one class in twenty at most: of one network each by McNemar's exact test, of
    several where the interval leaves 0 out and the class has 20 images or more.
    """
    return pd.DataFrame([_of_class(name, labels == name, a, b, seed) for name in np.unique(labels)])


def _of_class(name: str, rows: np.ndarray, a: Arm, b: Arm, seed: int) -> dict[str, object]:
    a, b = (Arm(arm.letter, arm.correct[:, rows]) for arm in (a, b))
    found = paired_tests.difference(a.scores, b.scores, seed=seed)
    return {
        "class": name,
        "images": int(rows.sum()),
        f"accuracy_{a.letter}": a.scores.mean(),
        f"accuracy_{b.letter}": b.scores.mean(),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "better": _better(a, b, found.value) if _are_told_apart(a, b, found) else "",
    }


def _are_told_apart(a: Arm, b: Arm, found: Difference) -> bool:
    if len(a.correct) == len(b.correct) == 1:
        return paired_tests.mcnemar(a.correct[0], b.correct[0]).p_value < 0.05
    alike = math.isnan(found.low)  # of a bootstrap all resamples are, so that the value itself is the interval
    return len(a.scores) >= LEAST_IMAGES and (found.value != 0 if alike else _leaves_zero_out(found))


def _of_networks(a: Arm, b: Arm, over_images: Difference, alpha: float) -> Verdict:
    test = paired_tests.mcnemar(a.correct[0], b.correct[0])
    facts = (
        f"{_interval(over_images, alpha, 'images')}; McNemar's exact p = {test.p_value:.3g}, "
        f"{test.only_b} images only {b.letter} has right, {test.only_a} only {a.letter})"
    )
    end = "these images do not tell the two networks apart"
    if test.p_value < alpha:
        better = _better(a, b, over_images.value)
        end = f"of these two networks {better} is better; with one seed each that says little of the two recipes"
    numbers = {f"only_{a.letter}": test.only_a, f"only_{b.letter}": test.only_b, "p_value": test.p_value}
    return Verdict(f"{facts}: {end}", numbers)


def _of_recipes(a: Arm, b: Arm, over_images: Difference, alpha: float) -> Verdict:
    over_seeds = seeds.difference(a.accuracies, b.accuracies, 1 - alpha)
    facts = f"{_interval(over_seeds, alpha, 'seeds')}; {_interval(over_images, alpha, 'images')})"
    numbers = {"over_seeds_low": over_seeds.low, "over_seeds_high": over_seeds.high}
    if math.isnan(over_seeds.low):
        return Verdict(f"{facts}: all seeds of each ended alike, which leaves their spread unknown", numbers)
    numbers["detectable"] = seeds.detectable(a.accuracies, b.accuracies, alpha=alpha)
    if not _leaves_zero_out(over_seeds):
        could = f"with such a spread they would show {100 * numbers['detectable']:.2f} points four times in five"
        return Verdict(f"{facts}: so few seeds do not tell the two apart; {could}", numbers)
    end = f"on these images {_better(a, b, over_seeds.value)} is better over seeds"
    if not _leaves_zero_out(over_images):
        end += "; on other images of the kind it need not be"
    return Verdict(f"{facts}: {end}", numbers)


def _of_unequal(a: Arm, b: Arm, over_images: Difference, alpha: float) -> Verdict:
    facts = f"{_interval(over_images, alpha, 'images')})"
    return Verdict(f"{facts}: how much of that is the seed's takes two seeds of each to say", {})


def _interval(found: Difference, alpha: float, over: str) -> str:
    if math.isnan(found.low):
        return f"no interval over {over}"
    return f"{100 * (1 - alpha):.4g} % interval over {over} {100 * found.low:+.2f} to {100 * found.high:+.2f}"


def _leaves_zero_out(found: Difference) -> bool:
    return found.low > 0 or found.high < 0


def _better(a: Arm, b: Arm, difference: float) -> str:
    return b.letter if difference > 0 else a.letter
