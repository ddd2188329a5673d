"""The short cycles that interrupted range tests have finished, so that a new range test does not repeat them."""

import math
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pipeline.progress import say
from pipeline.tracking import owners, store
from pipeline.training.short_cycles import Cycle

TABLE = "short_cycles.csv"


class Finished(NamedTuple):
    """A short cycle, and the run that trained it."""

    cycle: Cycle
    run_id: str


def find(fingerprint: str, seed: int) -> dict[float, Finished]:
    """The cycles of this user's interrupted range tests with `fingerprint` and `seed`, by peak rate."""
    found: dict[float, Finished] = {}
    for run in store.unfinished_runs("lr_range", {"range_test": fingerprint}):
        run_id = run.info.run_id
        if run.data.params.get("seed") != str(seed) or not owners.is_own(run):
            continue
        with store.scratch() as folder:
            try:
                has_table = TABLE in store.artifacts(run_id)
                cycles = _read(store.artifact(run_id, TABLE, folder)) if has_table else []
            except ValueError as error:
                say(f"the short cycles of range test {run_id} are not used: {error}")
                continue
        for cycle in cycles:
            found.setdefault(cycle.lr, Finished(cycle, run_id))
    return found


def _read(file: Path) -> list[Cycle]:
    """The short cycles in `file`. Raises ValueError if it is not a table of short cycles."""
    try:
        table = pd.read_csv(file)
        rows = table[["lr", "loss", "accuracy", "first_loss"]].astype(float).itertuples(index=False)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{TABLE} is damaged ({' '.join(str(error).split())})") from None
    return [Cycle(lr, loss, None if math.isnan(accuracy) else accuracy, first) for lr, loss, accuracy, first in rows]
