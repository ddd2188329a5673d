"""Reports the sets of classes of an evaluation: how many hold the true class, and how large they are."""

from collections.abc import Sequence

import numpy as np

from pipeline.progress import say
from pipeline.results import plots, prediction_sets
from pipeline.results.operating_points import Answers
from pipeline.results.prediction_sets import PredictionSets
from pipeline.tracking.run import Run
from pipeline.training.calibration import Calibration


def known_sets(calibration: Calibration | None, says_why_not: bool = True) -> PredictionSets | None:
    """The sets of a calibration; None if there are none.

    says_why_not: prints why a calibration has no sets.
    """
    if calibration is None:
        return None
    if lack := prediction_sets.lack(calibration.sets):
        if says_why_not:
            say(lack)
        return None
    return calibration.sets


def report(
    run: Run, calibration: Calibration | None, test: Answers, classes: Sequence[str], groups: np.ndarray | None
) -> tuple[dict[str, float], str, list[str]]:
    """Logs sets.csv, set_sizes.csv and sets.png. Returns numbers by metric name, a line about them, and the sets.

    All three are empty if there are no sets. groups: (N,) int64 of the test images, or None.
    """
    sets = known_sets(calibration)
    if sets is None:
        return {}, "", []
    inside = sets.inside(test.probabilities)
    table = prediction_sets.by_class(inside, test.labels, classes, groups)
    run.table("sets.csv", table)
    run.table("set_sizes.csv", prediction_sets.by_size(inside, test.labels, groups))
    run.figure("sets.png", plots.prediction_sets(table, sets.coverage))
    numbers = prediction_sets.numbers(inside, test.labels, groups)
    over, kind = ("_over_groups", "95 % interval over groups") if groups is not None else ("", "95 % interval")
    low, high = (numbers[f"test/set_coverage{over}_{end}"] for end in ("low", "high"))
    line = (
        f"sets of classes: {numbers['test/set_coverage']:.1%} hold the true class ({kind} {low:.1%} to "
        f"{high:.1%}; wanted: at least {sets.coverage:.1%}); a set has {numbers['test/set_size']:.2f} classes on "
        f"average, and {numbers['test/single_sets']:.1%} of the sets have one"
    )
    numbers["test/set_coverage_wanted"] = sets.coverage
    return numbers, line, prediction_sets.as_texts(inside, test.probabilities, classes)
