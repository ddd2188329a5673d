"""Compares two recipes, with one or several networks each, on the same images: which is better, and is that certain?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from pipeline.results import dependence, paired_tests, seeds
from pipeline.results.paired_tests import Difference

# Fewest images or groups of a class for a verdict. With fewer, their interval excludes 0 by chance too often.
LEAST_OF_CLASS = 20


@dataclass(frozen=True)
class Arm:
    """R networks of one recipe, which differ only in their seed, on the same N images."""

    name: str  # a letter, or words such as `the probe`
    correct: np.ndarray  # (R, N) bool
    groups: np.ndarray | None = None  # (N,) int64, the group of each image; None if the images are independent

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
        return f"{self.name} {number}" + (f" (mean of {count} seeds)" if count > 1 else "")


class Verdict(NamedTuple):
    """The result of a comparison in one sentence, and its numbers."""

    sentence: str
    numbers: dict[str, float]


def judge(a: Arm, b: Arm, alpha: float = 0.05, seed: int = 0) -> Verdict:
    """Whether `b` is better or worse than `a` at level `alpha`: over images, or over seeds if both have several.

    With groups, over groups instead of over images. Numbers: `difference` in accuracy, `over_images_low` and
    `over_images_high`, with groups also `over_groups_low` and `over_groups_high`; for one network each `only_<name>`
    (images) and `p_value`, with groups also `p_value_over_groups`; for several each, `over_seeds_low`,
    `over_seeds_high` and `detectable`. Numbers that would be NaN are left out.
    """
    over = _over(a, b, alpha, seed)
    difference = over["images"].value
    numbers = {"difference": difference}
    for what, found in over.items():
        numbers |= {f"over_{what}_low": found.low, f"over_{what}_high": found.high}
    fewest, most = sorted((len(a.correct), len(b.correct)))
    how = _of_networks if most == 1 else _of_recipes if fewest > 1 else _of_unequal
    verdict = how(a, b, over, alpha)
    numbers |= verdict.numbers
    images = f"{len(a.scores)} test images"
    if a.groups is not None:
        images += f" in {len(np.unique(a.groups))} groups"
    sentence = (
        f"{b.description} against {a.description} on {images}: {100 * difference:+.2f} points ({verdict.sentence}"
    )
    return Verdict(sentence, {name: value for name, value in numbers.items() if not math.isnan(value)})


def network_test(correct_a: np.ndarray, correct_b: np.ndarray, groups: np.ndarray | None = None) -> dict[str, float]:
    """The numbers of `mcnemar` for two networks; with groups also `p_value_over_groups`, the one that decides."""
    found: dict[str, float] = paired_tests.mcnemar(correct_a, correct_b)._asdict()
    if groups is not None:
        found["p_value_over_groups"] = dependence.sign_flips(correct_b.astype(float) - correct_a, groups)
    return found


def per_class(labels: np.ndarray, a: Arm, b: Arm, seed: int = 0) -> pd.DataFrame:
    """One row per class in `labels` (N,): class, images, accuracy of each arm, difference, low, high, better.

    `low` and `high` are the 95 % interval over the images of the class, or over their groups; blank if all have the
    same difference. `better` names an arm if the difference is significant at 5 %: by the test for one network each;
    for several, if the interval excludes 0 and the class has 20 images (or groups) or more.
    """
    return pd.DataFrame([_of_class(name, labels == name, a, b, seed) for name in np.unique(labels)])


def _of_class(name: str, rows: np.ndarray, a: Arm, b: Arm, seed: int) -> dict[str, object]:
    a, b = (Arm(arm.name, arm.correct[:, rows], None if arm.groups is None else arm.groups[rows]) for arm in (a, b))
    found = _decisive(_over(a, b, 0.05, seed))
    return {
        "class": name,
        "images": int(rows.sum()),
        f"accuracy_{a.name}": a.scores.mean(),
        f"accuracy_{b.name}": b.scores.mean(),
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "better": _better(a, b, found.value) if _is_significant(a, b, found) else "",
    }


def _is_significant(a: Arm, b: Arm, found: Difference) -> bool:
    if len(a.correct) == len(b.correct) == 1:
        return _p_value(network_test(a.correct[0], b.correct[0], a.groups)) < 0.05
    is_point = math.isnan(found.low)  # all images have the same difference, so the interval is the value itself
    number = len(a.scores) if a.groups is None else len(np.unique(a.groups))
    return number >= LEAST_OF_CLASS and (found.value != 0 if is_point else _excludes_zero(found))


def _over(a: Arm, b: Arm, alpha: float, seed: int) -> dict[str, Difference]:
    """The difference with its interval over images and, if there are groups, over groups."""
    over = {"images": paired_tests.difference(a.scores, b.scores, 1 - alpha, seed)}
    if a.groups is not None:
        over["groups"] = dependence.mean(b.scores - a.scores, a.groups, 1 - alpha)
    return over


def _decisive(over: Mapping[str, Difference]) -> Difference:
    return over.get("groups", over["images"])


def _p_value(test: Mapping[str, float]) -> float:
    return test.get("p_value_over_groups", test["p_value"])


def _of_networks(a: Arm, b: Arm, over: Mapping[str, Difference], alpha: float) -> Verdict:
    test = network_test(a.correct[0], b.correct[0], a.groups)
    facts = (
        f"{_intervals(over, alpha)}; McNemar's exact p = {test['p_value']:.3g}, "
        f"only {b.name} is right on {test['only_b']} images, only {a.name} on {test['only_a']}"
    )
    if "p_value_over_groups" in test:
        facts += f"; over groups p = {test['p_value_over_groups']:.3g}"
    end = "these images show no difference between the two networks"
    if _p_value(test) < alpha:
        better = _better(a, b, over["images"].value)
        winner = better if better.startswith("the ") else f"network {better}"
        end = f"{winner} is better; with one seed each, this says little about the two recipes"
    numbers = {f"only_{a.name}": test.pop("only_a"), f"only_{b.name}": test.pop("only_b"), **test}
    return Verdict(f"{facts}): {end}", numbers)


def _of_recipes(a: Arm, b: Arm, over: Mapping[str, Difference], alpha: float) -> Verdict:
    over_seeds = seeds.difference(a.accuracies, b.accuracies, 1 - alpha)
    facts = f"{_interval(over_seeds, alpha, 'seeds')}; {_intervals(over, alpha)})"
    numbers = {"over_seeds_low": over_seeds.low, "over_seeds_high": over_seeds.high}
    if math.isnan(over_seeds.low):
        return Verdict(f"{facts}: all seeds of each have the same accuracy, so their spread is unknown", numbers)
    numbers["detectable"] = seeds.detectable(a.accuracies, b.accuracies, alpha=alpha)
    if not _excludes_zero(over_seeds):
        could = f"a true difference of {100 * numbers['detectable']:.2f} points would be found in 80 % of such trials"
        return Verdict(f"{facts}: these seeds show no difference between the two; {could}", numbers)
    end = f"on these images {_better(a, b, over_seeds.value)} is better over seeds"
    if not _excludes_zero(_decisive(over)):
        end += "; on other images of this kind that is not certain"
    return Verdict(f"{facts}: {end}", numbers)


def _of_unequal(a: Arm, b: Arm, over: Mapping[str, Difference], alpha: float) -> Verdict:
    facts = f"{_intervals(over, alpha)})"
    return Verdict(f"{facts}: train at least two seeds of each to know how much of this comes from the seed", {})


def _intervals(over: Mapping[str, Difference], alpha: float) -> str:
    return "; ".join(_interval(found, alpha, what) for what, found in over.items())


def _interval(found: Difference, alpha: float, over: str) -> str:
    if math.isnan(found.low):
        return f"no interval over {over}"
    return f"{100 * (1 - alpha):.4g} % interval over {over} {100 * found.low:+.2f} to {100 * found.high:+.2f}"


def _excludes_zero(found: Difference) -> bool:
    return found.low > 0 or found.high < 0


def _better(a: Arm, b: Arm, difference: float) -> str:
    return b.name if difference > 0 else a.name
