"""The records of finished runs as plain values, from which a page is made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class StepRecord:
    """The record of one run. Its texts may hold anything that fits in a line."""

    kind: str  # main, seeds, lr_range, probe, sweep, train, evaluate, evaluate_beside (of the other network) or explain
    run_id: str
    name: str
    seconds: float | None  # None if unknown: the run has not ended, or was resumed
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # by path of the artifact
    pictures: Mapping[str, bytes] = field(default_factory=dict)  # WebP files, by path of the artifact
    epochs: pd.DataFrame = field(default_factory=pd.DataFrame)  # one row per epoch: `epoch`, and a column per metric


@dataclass(frozen=True)
class Record:
    """The run that a page is about, and the steps that belong to it, by kind. If the run is a step, it is included."""

    run: StepRecord
    steps: Mapping[str, StepRecord]
