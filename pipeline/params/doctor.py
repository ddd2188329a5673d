"""Parameters of the doctor of data sets."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import Params
from pipeline.params.recipe import DataParams, DeviceParams, FlipParams, SeedParams


class CheckupParams(Params):
    near_similarity: float = Field(
        0.85, ge=0.5, le=1, description="of two images, from which they are near duplicates (1: exact ones alone)"
    )
    odd_deviations: float = Field(
        5.0, ge=2, le=100, description="robust standard deviations from which blurred and unlike all others are odd"
    )
    max_aspect: float = Field(3.0, ge=1, le=1000, description="longer over shorter side that is not yet extreme")
    label_folds: int = Field(4, ge=2, le=20, description="of the cross-validation that checks train labels")
    label_epochs: Annotated[int, Field(ge=0, le=1000)] | Literal["auto"] = Field(
        "auto", description="of each of its trainings; 0: labels are not checked"
    )


class DoctorParams(DataParams, FlipParams, DeviceParams, SeedParams, CheckupParams):
    """What is wrong with an image set, before a training is spent: duplicates, leaks, suspect labels, odd images."""
