"""Does a 95 % interval hold the truth in 95 % of all test sets? Simulated answers, whose truth is known.

python -m benchmarks.coverage [simulations]   prints a Markdown table for each kind of interval; the default is 1,000

The answers come from benchmarks.alike_images. Every setting has a seed of its own.
"""

import sys
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from benchmarks.alike_images import Images
from benchmarks.sets_of_classes import sets_of_classes
from pipeline.data.division import divide_into
from pipeline.results import dependence, folds, metrics, paired_tests, seeds, slices

SIMULATIONS = 1000
RESAMPLES = 999  # of a bootstrap; the pipeline takes 9999
BINS = 15  # of the calibration error, as in the pipeline
FEATURES, TRUTH_SETS = 10, 2_000  # of the learner that is cross-validated: its inputs, and sets that give the truth
FEWER = 6  # inputs of the learner that it is compared with
TRUTH_IMAGES = 2_000_000  # from which the true calibration error is computed


INDEPENDENT = (Images(100, 1, 0), Images(400, 1, 0))
GROUPED = (
    Images(50, 8, 0),
    Images(50, 8, 0.3),
    Images(50, 8, 0.8),
    Images(20, 8, 0.5),
    Images(50, 8, 0.5, is_uneven=True),
    Images(200, 8, 0.5, is_uneven=True),
)
Trial = Callable[[np.random.Generator], Mapping[str, float]]


def shares(images: Images, accuracy: float) -> Trial:
    """Accuracy, and recall with it: both are a share of images."""

    def trial(draw: np.random.Generator) -> dict[str, bool]:
        groups = images.groups(draw)
        (right,) = images.answers(draw, groups, accuracy)
        low, high = metrics.accuracy_interval(int(right.sum()), len(right))
        found = {"Wilson, as if independent": low <= accuracy <= high}
        if images.size > 1:
            over = dependence.share(right, groups)
            found["over groups"] = over.low <= accuracy <= over.high
        return found

    return trial


def differences(images: Images, first: float, second: float) -> Trial:
    """The difference of two networks on the same images; if both are equally good, also how often a test says so."""

    def trial(draw: np.random.Generator) -> dict[str, bool]:
        groups = images.groups(draw)
        a, b = images.answers(draw, groups, first, second)
        truth = second - first
        over = {"bootstrap, as if independent": paired_tests.difference(a, b, seed=0, resamples=RESAMPLES)}
        if images.size > 1:
            over["over groups (CR2)"] = dependence.mean(b.astype(float) - a, groups)
        # Without an interval, as if all images have the same difference, nothing is claimed.
        found = {name: not (each.low > truth or each.high < truth) for name, each in over.items()}
        if truth == 0:
            found["McNemar, no false verdict"] = paired_tests.mcnemar(a, b).p_value >= 0.05
            if images.size > 1:
                found["sign flips of groups, no false verdict"] = (
                    dependence.sign_flips(b.astype(float) - a, groups) >= 0.05
                )
        return found

    return trial


def together(images: Images, number: int, accuracy: float) -> Trial:
    """All slices of a column of `number` values, each equally good. A group is in one slice, as of one camera."""

    def trial(draw: np.random.Generator) -> dict[str, bool]:
        groups = images.groups(draw)
        (right,) = images.answers(draw, groups, accuracy)
        camera = draw.integers(0, number, images.num_groups)[groups].astype(str)
        found = slices.table(right, {"camera": camera.tolist()}, None if images.size == 1 else groups)
        return {
            "all intervals hold": bool(found["low"].le(accuracy).all() and found["high"].ge(accuracy).all()),
            "no slice is called below": not found["below"].any(),
        }

    return trial


def over_seeds(number: int, deviations: tuple[float, float]) -> Trial:
    """Two recipes of `number` seeds each, whose accuracies deviate by `deviations` from seed to seed."""

    def trial(draw: np.random.Generator) -> dict[str, bool]:
        a, b = (draw.normal(0.9, deviation, number) for deviation in deviations)
        found = seeds.difference(a, b)
        half = t.isf(0.025, number - 1) * a.std(ddof=1) / np.sqrt(number)
        return {
            "difference of two recipes (Welch)": found.low <= 0 <= found.high,
            "mean of one recipe (t)": bool(abs(a.mean() - 0.9) <= half),
        }

    return trial


def cross_validation(num_images: int, number: int) -> Trial:
    """The mean over folds of a learner that takes the nearer of two class means. Its expected accuracy is the truth.

    Also its mean difference to the same learner with fewer inputs.
    """
    centre = np.full(FEATURES, 0.3)

    def drawn(draw: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        signs = np.where(np.arange(count) % 2, 1, -1)
        return signs[:, None] * centre + draw.normal(size=(count, FEATURES)), signs

    def learned(features: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, float]:
        first, second = (features[signs == sign].mean(axis=0) for sign in (-1, 1))
        return second - first, float((second + first) @ (second - first)) / 2

    def expected(draw: np.random.Generator) -> list[float]:
        features, signs = drawn(draw, num_images - num_images // number)
        found = []
        for inputs in (FEATURES, FEWER):
            weight, bias = learned(features[:, :inputs], signs)
            reach = np.array([centre[:inputs] @ weight - bias, centre[:inputs] @ weight + bias])
            found.append(float(norm.cdf(reach / np.linalg.norm(weight)).mean()))
        return found

    draw = np.random.default_rng(0)
    truth, of_fewer = np.mean([expected(draw) for _ in range(TRUTH_SETS)], axis=0)

    def trial(draw: np.random.Generator) -> dict[str, bool]:
        features, signs = drawn(draw, num_images)
        parts = divide_into(number, np.arange(num_images), (signs > 0).astype(np.int64))

        def measured(inputs: int) -> np.ndarray:
            accuracies = []
            for fold in parts:
                weight, bias = learned(np.delete(features[:, :inputs], fold, axis=0), np.delete(signs, fold))
                accuracies.append((np.sign(features[fold, :inputs] @ weight - bias) == signs[fold]).mean())
            return np.array(accuracies)

        accuracies, fewer = measured(FEATURES), measured(FEWER)
        found, difference = folds.mean(accuracies), folds.mean(fewer - accuracies)
        half = t.isf(0.025, number - 1) * np.std(accuracies, ddof=1) / np.sqrt(number)
        usual = t.isf(0.025, number - 1) * np.std(fewer - accuracies, ddof=1) / np.sqrt(number)
        return {
            "s / sqrt(K)": bool(abs(found.value - truth) <= half),
            "corrected (Nadeau and Bengio)": bool(found.low <= truth <= found.high),
            "difference, s / sqrt(K)": bool(abs(difference.value - (of_fewer - truth)) <= usual),
            "difference, corrected": bool(difference.low <= of_fewer - truth <= difference.high),
        }

    return trial


def calibration_errors(num_images: int, overconfidence: float) -> Trial:
    """A percentile bootstrap of the calibration error. The pipeline gives no interval of it, and this says why."""

    def answered(draw: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        truth = draw.beta(6, 1.5, number)  # probability that the network is right
        confidence = np.clip(truth + overconfidence * (1 - truth), 0.1, 1)
        two_classes = np.stack([confidence, np.zeros(number)], axis=1)  # the other probabilities do not matter
        return two_classes, (draw.random(number) >= truth).astype(np.int64)  # label 0 if the network is right

    probabilities, labels = answered(np.random.default_rng(0), TRUTH_IMAGES)
    truth = metrics.calibration(labels, probabilities)[0]

    def trial(draw: np.random.Generator) -> dict[str, bool]:
        probabilities, labels = answered(draw, num_images)
        confidence = probabilities[:, 0]
        places = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
        gaps = np.zeros((num_images, BINS))
        gaps[np.arange(num_images), places] = (labels == 0) - confidence
        times = draw.multinomial(num_images, np.full(num_images, 1 / num_images), RESAMPLES)
        low, high = np.quantile(np.abs(times @ gaps).sum(axis=1) / num_images, [0.025, 0.975])
        return {"percentile bootstrap": bool(low <= truth <= high)}

    return trial


def table(title: str, settings: Mapping[str, Trial], simulations: int) -> str:
    """The mean of each number over the simulations, as a Markdown table: settings by numbers.

    For an interval, this is the share of simulations in which it holds the truth.
    """
    rows = {}
    for setting, trial in settings.items():
        draw = np.random.default_rng(0)
        rows[setting] = pd.DataFrame([trial(draw) for _ in range(simulations)]).mean()
    found = pd.DataFrame(rows).T
    cells = found.map(lambda share: "" if np.isnan(share) else f"{share:.1%}")
    lines = [[title, *found.columns], ["---"] * (1 + len(found.columns)), *cells.reset_index().to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: list[str]) -> None:
    """Prints the tables."""
    simulations = int(arguments[0]) if arguments else SIMULATIONS
    accuracies = (0.8, 0.95)
    tables: dict[str, dict[str, Trial]] = {
        "Accuracy and recall": {
            f"{images}, {accuracy:.0%} right": shares(images, accuracy)
            for images in (Images(20, 1, 0), *INDEPENDENT, *GROUPED)
            for accuracy in accuracies
        },
        "Difference of two networks": {
            f"{images}, {first:.0%} against {second:.0%}": differences(images, first, second)
            for images in (*INDEPENDENT, *GROUPED)
            for first, second in ((0.9, 0.9), (0.85, 0.9))
        },
        "Slices": {
            f"{number} slices of {images}, {accuracy:.0%} right": together(images, number, accuracy)
            for images in (Images(400, 1, 0), Images(100, 8, 0.5))
            for number in (3, 10)
            for accuracy in accuracies
        },
        "Seeds": {
            f"{number} seeds, deviations {100 * a:g} and {100 * b:g} points": over_seeds(number, (a, b))
            for number in (2, 3, 5)
            for a, b in ((0.005, 0.005), (0.002, 0.01))
        },
        "Cross-validation": {
            f"{number} folds of {count} images": cross_validation(count, number)
            for count in (60, 300)
            for number in (3, 5, 10)
        },
        "Expected calibration error": {
            f"{number} images, {what}": calibration_errors(number, overconfidence)
            for number in (200, 1000)
            for what, overconfidence in (("calibrated", 0.0), ("too sure", 0.4))
        },
        "Sets of classes": {
            f"{number} validation images{what}, wanted {coverage:.0%}": sets_of_classes(number, coverage, *groups)
            for what, groups in (("", ()), (" in groups of 8, 0.8 alike", (0.8, 8)))
            for number in (40, 200, 1000)
            for coverage in (0.9, 0.95)
        },
    }
    for title, settings in tables.items():
        print(table(title, settings, simulations), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
