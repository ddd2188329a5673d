"""Stores the calibration of a training with the run that computed it, so that later runs can use it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.model_files import checkpoint
from pipeline.progress import say
from pipeline.results.novelty import Familiar
from pipeline.results.temperature import HIGHEST, LOWEST, Temperature
from pipeline.tracking import store
from pipeline.tracking.run import Run
from pipeline.training.calibration import Calibration

FILE = "calibration.safetensors"
TAG, HERE = "calibration", "here"  # the tag has this value if the file is among the run's own artifacts


class _Numbers(BaseModel):
    """The numbers that the file holds in addition to its tensors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: Temperature | None
    limit: float = Field(ge=0)


def keep(run: Run, calibration: Calibration) -> None:
    """Logs `calibration` as an artifact of `run`. `find` finds it once the run is FINISHED."""
    with store.scratch() as folder:
        save(folder / FILE, calibration)
        run.file(folder / FILE, FILE)
    run.tags({TAG: HERE})


def find(train_run_id: str, checkpoint_name: str) -> tuple[Calibration, str] | None:
    """(the newest calibration of a training's checkpoint, the id of the run that has it); None if there is none."""
    wanted = {"train.run_id": train_run_id, "checkpoint": checkpoint_name, TAG: HERE}
    for stored in store.finished_runs("predict", wanted):
        run_id = stored.info.run_id
        with store.scratch() as folder:
            try:
                return load(store.artifact(run_id, FILE, folder)), run_id
            except ValueError as error:
                say(f"a stored calibration cannot be used and is computed again: {error} (run {run_id})")
    return None


def save(path: Path, calibration: Calibration) -> None:
    """Writes `calibration` to a file without pickle; `load` reads it."""
    familiar, temperature = calibration.familiar, calibration.temperature
    described = {"temperature": None if temperature is None else asdict(temperature), "limit": familiar.limit}
    tensors = {"whitening": familiar.whitening, "means": familiar.means}
    checkpoint.save(path, {name: torch.from_numpy(array) for name, array in tensors.items()}, described)


def load(path: Path) -> Calibration:
    """The calibration that `save` wrote. Raises ValueError for any other file."""
    tensors, described = checkpoint.load(path)
    try:
        parsed = _Numbers.model_validate(described)
        if parsed.temperature is not None and not LOWEST <= parsed.temperature.value <= HIGHEST:
            raise ValueError(f"its temperature is not between {LOWEST} and {HIGHEST}")
        whitening, means = tensors["whitening"].numpy(), tensors["means"].numpy()
        if not whitening.dtype == means.dtype == np.float32:
            raise ValueError("its tensors are not float32")
        if whitening.ndim != 2 or means.ndim != 2 or len({*whitening.shape, means.shape[1]}) != 1 or not len(means):
            raise ValueError("the shapes of its tensors do not match")
    except (ValidationError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a calibration of this pipeline ({reason})") from None
    return Calibration(parsed.temperature, Familiar(whitening, means, parsed.limit))


def numbers(calibration: Calibration) -> dict[str, float]:
    """The numbers of a calibration, by metric name."""
    fitted = {} if calibration.temperature is None else asdict(calibration.temperature)
    fitted["temperature"] = fitted.pop("value", None)
    values = {**fitted, "distance_limit": calibration.familiar.limit}
    return {f"calibration/{name}": value for name, value in values.items() if value is not None}
