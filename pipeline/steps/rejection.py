"""Reports unsure answers and unlike images of an evaluation: how the limits from validation do on test."""

import numpy as np

from pipeline.results import plots, rejection
from pipeline.results.operating_points import Answers
from pipeline.tracking.run import Run
from pipeline.training.calibration import Calibration


def report(
    run: Run, calibration: Calibration | None, test: Answers, features: np.ndarray, name: str
) -> tuple[dict[str, float], str]:
    """Logs risk_coverage.csv and risk_coverage.png. Returns the numbers, keyed by metric name, and a line about them.

    The share of the test images that are unlike the training images comes from their `features` (N, D). Without a
    calibration there are no limits, and the area under the curve is the only number.
    """
    outcomes = rejection.outcomes(test.probabilities, test.labels)
    curve, numbers = outcomes.curve(), {"test/risk_coverage_area": outcomes.area()}
    run.table("risk_coverage.csv", curve)
    wanted = chosen = None
    line = ""
    if calibration is not None:
        wanted, found = calibration.most_error, outcomes.numbers(calibration.threshold)
        numbers["test/coverage"] = found.pop("coverage")
        numbers |= {f"test/sure_{metric}": value for metric, value in found.items()}
        line = f"sure answers: {numbers['test/coverage']:.1%} of the images"
        if found:
            chosen = numbers["test/coverage"], found["error"]
            interval = f"95 % interval {found['error_low']:.2%} to {found['error_high']:.2%}"
            line += f", {found['error']:.2%} of them wrong ({interval}; wanted: at most {wanted:.1%})"
        numbers["test/unlike"] = float(calibration.familiar.unlike(calibration.familiar.distances(features)).mean())
        line += f"; {numbers['test/unlike']:.1%} unlike the training images"
    area = f"{name}: area under errors over coverage {numbers['test/risk_coverage_area']:.4f}"
    run.figure("risk_coverage.png", plots.risk_coverage(curve, chosen, wanted, area))
    return numbers, line
