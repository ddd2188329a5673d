"""Steps as function calls, for notebooks and scripts."""

import gc
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import launch, progress
from pipeline.params import STEPS
from pipeline.params.base import as_text, nearest
from pipeline.settings import command
from pipeline.tracking import journal, store


@dataclass(frozen=True)
class Outcome:
    """The run of a finished step, and its main numbers."""

    run_id: str
    summary: str  # one line
    metrics: dict[str, float]
    tracking_uri: str  # of the store that has the run

    def path(self, artifact: str) -> Path:
        """The run's artifact of that name, such as `report.html`, as a file or folder on this machine.

        An artifact of a tracking server is downloaded into a temporary folder. Raises ValueError if it is missing.
        """
        return store.artifact(self.run_id, artifact, Path(tempfile.mkdtemp(prefix="pipeline-")))


def run(step: str, parameters: Mapping[str, Any], *, quiet: bool) -> Outcome:
    """Runs `step`. Raises ValueError for bad input, `Failure` if there is no result although the input was right."""
    if step not in STEPS:
        raise ValueError(f"unknown step {step}{nearest(step, STEPS)} (steps: {', '.join(STEPS)})")
    fields = STEPS[step].model_fields
    if unknown := [name for name in parameters if name not in fields]:
        raise ValueError(f"{step} has no parameter {unknown[0]}{nearest(unknown[0], fields)}")
    if (devices := parameters.get("devices", 1)) not in (1, "1"):
        typed = command(step, devices=str(devices))
        raise ValueError(f"devices={devices}: a notebook trains on one device; type {typed}")
    if parameters.get("photos"):
        raise ValueError("photos: prints lines on a terminal, not in a notebook; give images, for a run with a table")
    flags = {name: as_text(value) for name, value in parameters.items()}
    try:
        with progress.quiet(quiet):
            result = launch.start(step, flags, catches_signals=False)
    finally:
        gc.unfreeze()  # the caller's objects too were frozen, and must be collected again
    if lines := journal.unsent():
        progress.tell(lines)
    return Outcome(result.run_id, result.summary, result.metrics, store.uri())
