"""Tests whether the suggested rate is good: measures the validation accuracy of OneCycle at the rates around it.

python -m benchmarks.suggested_rate [--name value ...]   takes any parameter of the step `train`
"""

import sys
import time
from typing import cast

from pipeline.history.initial_weights import prepare
from pipeline.params import LadderParams, TrainParams
from pipeline.settings import resolve
from pipeline.training import range_test
from pipeline.training.events import EpochEnd
from pipeline.training.training import Diverged

FACTORS = (1 / 3, 1, 3, 10, 30)


def main(arguments: list[str]) -> None:
    """Prints each rule's rate, then a Markdown table of accuracy by rate."""
    flags = {name.removeprefix("--"): value for name, value in zip(arguments[::2], arguments[1::2], strict=True)}
    params = cast(TrainParams, resolve("train", flags))
    recipe = prepare(params)
    if recipe.splits.valid is None:
        sys.exit("valid_fraction=0: rates are compared on the validation split")
    ladder = LadderParams()
    repeats = range(recipe.num_ladders(ladder))
    curves = [range_test.climb(recipe.ladder(ladder, repeat), ladder.ladder_steps) for repeat in repeats]
    suggestion = range_test.suggest(curves)
    print({rule: f"{rate:.2e}" for rule, rate in suggestion.rates.items() if rate})
    if suggestion.lr is None:
        sys.exit(suggestion.reason)
    print("| max_lr | of the suggestion | validation accuracy | loss | seconds |\n|---|---|---|---|---|")
    for factor in FACTORS:
        started = time.perf_counter()
        try:
            *_, end = recipe.one_cycle(factor * suggestion.lr).events()
            assert isinstance(end, EpochEnd)
            reached = f"{end.valid_accuracy:.2%} | {end.valid_loss:.4f}"
        except Diverged:
            reached = "diverged |"
        seconds = time.perf_counter() - started
        print(f"| {factor * suggestion.lr:.2e} | x {factor:.2g} | {reached} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
