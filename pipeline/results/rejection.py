"""Which answers are unsure: errors against the share of images that are answered, and a threshold on the confidence."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MOST_ERROR = 0.02  # the default for the largest share of the sure answers that may be wrong on validation
CURVE_POINTS = 200  # at most


@dataclass(frozen=True)
class Outcomes:
    """How confident a network was of each of N images, and whether it was right."""

    confidence: np.ndarray  # (N,) float, the calibrated probability of the predicted class
    correct: np.ndarray  # (N,) bool

    def threshold(self, most_error: float) -> float:
        """The lowest confidence from which on at most the share `most_error` is wrong; infinite if there is none."""
        thresholds, _, errors = self._steps()
        good = errors <= most_error
        return float(thresholds[good].min()) if good.any() else np.inf

    def area(self) -> float:
        """The area under the curve of errors over coverage, in [0, 1] (Geifman et al. 2019, arXiv:1805.08206).

        It is the mean, over the images, of the error of those at least as confident.
        """
        _, coverage, errors = self._steps()
        return float((errors * np.diff(coverage, prepend=0)).sum())

    def curve(self) -> pd.DataFrame:
        """One row per threshold, falling: threshold, coverage, error, error_low and error_high, all in [0, 1].

        coverage is the share of images that are at least as confident; error is the share of them that is wrong, with
        its 95 % interval. At most 200 rows, evenly spread.
        """
        from pipeline.results.metrics import accuracy_interval  # imported late, as in `temperature.fit`

        thresholds, coverage, errors = self._steps()
        taken = np.unique(np.linspace(0, len(thresholds) - 1, CURVE_POINTS).round().astype(int))
        answered = (coverage[taken] * len(self.correct)).round().astype(int)
        wrong = (errors[taken] * answered).round().astype(int)
        low, high = zip(*map(accuracy_interval, wrong.tolist(), answered.tolist()), strict=True)
        columns = {"threshold": thresholds, "coverage": coverage, "error": errors}
        rows = {name: column[taken] for name, column in columns.items()}
        return pd.DataFrame({**rows, "error_low": low, "error_high": high})

    def numbers(self, threshold: float) -> dict[str, float]:
        """The share answered at `threshold` as `coverage`, and `error`, `error_low`, `error_high` of these answers.

        Without any answer, the error is left out.
        """
        from pipeline.results.metrics import accuracy_interval

        sure = self.confidence >= threshold
        answered, wrong = int(sure.sum()), int((~self.correct[sure]).sum())
        found = {"coverage": answered / len(sure)}
        if answered:
            low, high = accuracy_interval(wrong, answered)
            found |= {"error": wrong / answered, "error_low": low, "error_high": high}
        return found

    def _steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each confidence that occurs, the highest first, with the coverage and the error from there on, float64."""
        order = np.argsort(-self.confidence, kind="stable")
        confidence, wrong = self.confidence[order].astype(np.float64), ~self.correct[order]
        last = np.flatnonzero(np.append(np.diff(confidence) != 0, True))  # of those equally confident
        return confidence[last], (last + 1) / len(order), np.cumsum(wrong)[last] / (last + 1)


def outcomes(probabilities: np.ndarray, labels: np.ndarray) -> Outcomes:
    """The outcomes of `probabilities` (N, C) for `labels` (N,)."""
    return Outcomes(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
