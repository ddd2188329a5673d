"""What finished runs left behind, as plain values: all that a page is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class StepRecord:
    """What one run left behind. Its texts may hold anything that fits in a line."""

    kind: str  # main, seeds, lr_range, probe, sweep, train, evaluate, evaluate_beside (of the other network) or explain
    run_id: str
    name: str
    seconds: float | None  # None where that is not known: while it runs, and of a run that was gone on with
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # by the path of the artifact
    pictures: Mapping[str, bytes] = field(default_factory=dict)  # WebP, by the same
    epochs: pd.DataFrame = field(default_factory=pd.DataFrame)  # `epoch`, and a column per metric logged at each


@dataclass(frozen=True)
class Record:
    """The run that a page is about, and the steps that belong to it, by kind: the run itself too, if it is a step."""

    run: StepRecord
    steps: Mapping[str, StepRecord]
