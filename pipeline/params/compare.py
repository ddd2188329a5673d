"""What a comparison of finished trainings takes."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from pipeline.params.declared import absolute, comma_separated
from pipeline.params.recipe import DeviceParams, SeedParams
from pipeline.params.trained import CamMethod

MAX_RUNS = 200

RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def _not_repeated(runs: tuple[str, ...]) -> tuple[str, ...]:
    if repeated := {run for run in runs if runs.count(run) > 1}:
        raise ValueError(f"{min(repeated)} is named more than once")
    if len(runs) > MAX_RUNS:
        raise ValueError(f"{len(runs)} runs; name {MAX_RUNS} at most")
    return runs


class CompareParams(DeviceParams, SeedParams):
    """Which of several trainings is better on the same test images: by how much, where, and how sure that is."""

    runs: Annotated[tuple[RunId, ...], BeforeValidator(comma_separated), AfterValidator(_not_repeated)] = Field(
        description="trainings, evaluations or experiments, comma-separated; all others are compared with the first"
    )
    method: CamMethod = Field("gradcam", description="class activation map of the images they disagree on")
    num_images: int = Field(
        4, ge=0, le=32, description="images shown that only the one has right, and as many of the other (0: none)"
    )
    data_dir: Annotated[str, AfterValidator(absolute)] = Field(
        "", description="where the images lie now; empty: where the training found them"
    )
