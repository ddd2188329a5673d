"""Compares two recipes, with one or several networks each, on the same images: which is better, and is that certain?"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results import paired_tests, seeds
from pipeline.results.paired_tests import Difference

LEAST_IMAGES = 20  # of a class: with fewer, the interval of a percentile bootstrap excludes 0 by chance too often


@dataclass(frozen=True)
class Arm:
    """R networks of one recipe, which differ only in their seed, on the same N images."""

    letter: str
    correct: np.ndarray  # (R, N) bool

    @property
    def accuracies(self) -> np.ndarray:
        """The accuracy of each network: (R,), in [0, 1]."""
        return np.asarray(self.correct.mean(axis=1))

    @property
    def scores(self) -> np.ndarray:
        """For each image, the share of networks that are right: (N,)."""
        return np.asarray(self.correct.mean(axis=0))

    @property
    def description(self) -> str:
        """The arm with its accuracy, in words."""
        count = len(self.correct)
        number = f"{self.accuracies.mean():.2%}"
        return f"{self.letter} {number}" + (f" (mean of {count} seeds)" if count > 1 else "")


class Verdict(NamedTuple):
    """The result of a comparison in one sentence, and its numbers."""

    sentence: str
    numbers: dict[str, float]


def judge(a: Arm, b: Arm, alpha: float = 0.05, seed: int = 0) -> Verdict:
    """Whether `b` is better or worse than `a` at level `alpha`: over images, or over seeds if both have several.

    Numbers: `difference` in accuracy, `over_images_low` and `over_images_high`; for one network each, McNemar's
    `only_<letter>` (images) and `p_value`; for several each, `over_seeds_low`, `over_seeds_high` and `detectable`.
    Numbers that would be NaN are left out.
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
    """One row per class in `labels` (N,): class, images, accuracy of each arm, difference, low, high, better.

    `low` and `high` are the 95 % interval over the images of the class, blank if all have the same difference. `better`
    names an arm if the difference is significant at 5 %: by McNemar's exact test for one network each; for several, if
    the interval excludes 0 and the class has 20 images or more.
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
        "better": _better(a, b, found.value) if _is_significant(a, b, found) else "",
    }


def _is_significant(a: Arm, b: Arm, found: Difference) -> bool:
    if len(a.correct) == len(b.correct) == 1:
        return paired_tests.mcnemar(a.correct[0], b.correct[0]).p_value < 0.05
    is_point = math.isnan(found.low)  # all images have the same difference, so the interval is the value itself
    return len(a.scores) >= LEAST_IMAGES and (found.value != 0 if is_point else _excludes_zero(found))


def _of_networks(a: Arm, b: Arm, over_images: Difference, alpha: float) -> Verdict:
    test = paired_tests.mcnemar(a.correct[0], b.correct[0])
    facts = (
        f"{_interval(over_images, alpha, 'images')}; McNemar's exact p = {test.p_value:.3g}, "
        f"only {b.letter} is right on {test.only_b} images, only {a.letter} on {test.only_a})"
    )
    end = "these images show no difference between the two networks"
    if test.p_value < alpha:
        better = _better(a, b, over_images.value)
        end = f"network {better} is better; with one seed each, this says little about the two recipes"
    numbers = {f"only_{a.letter}": test.only_a, f"only_{b.letter}": test.only_b, "p_value": test.p_value}
    return Verdict(f"{facts}: {end}", numbers)


def _of_recipes(a: Arm, b: Arm, over_images: Difference, alpha: float) -> Verdict:
    over_seeds = seeds.difference(a.accuracies, b.accuracies, 1 - alpha)
    facts = f"{_interval(over_seeds, alpha, 'seeds')}; {_interval(over_images, alpha, 'images')})"
    numbers = {"over_seeds_low": over_seeds.low, "over_seeds_high": over_seeds.high}
    if math.isnan(over_seeds.low):
        return Verdict(f"{facts}: all seeds of each have the same accuracy, so their spread is unknown", numbers)
    numbers["detectable"] = seeds.detectable(a.accuracies, b.accuracies, alpha=alpha)
    if not _excludes_zero(over_seeds):
        could = f"a true difference of {100 * numbers['detectable']:.2f} points would be found in 80 % of such trials"
        return Verdict(f"{facts}: these seeds show no difference between the two; {could}", numbers)
    end = f"on these images {_better(a, b, over_seeds.value)} is better over seeds"
    if not _excludes_zero(over_images):
        end += "; on other images of this kind that is not certain"
    return Verdict(f"{facts}: {end}", numbers)


def _of_unequal(a: Arm, b: Arm, over_images: Difference, alpha: float) -> Verdict:
    facts = f"{_interval(over_images, alpha, 'images')})"
    return Verdict(f"{facts}: train at least two seeds of each to know how much of this comes from the seed", {})


def _interval(found: Difference, alpha: float, over: str) -> str:
    if math.isnan(found.low):
        return f"no interval over {over}"
    return f"{100 * (1 - alpha):.4g} % interval over {over} {100 * found.low:+.2f} to {100 * found.high:+.2f}"


def _excludes_zero(found: Difference) -> bool:
    return found.low > 0 or found.high < 0


def _better(a: Arm, b: Arm, difference: float) -> str:
    return b.letter if difference > 0 else a.letter
