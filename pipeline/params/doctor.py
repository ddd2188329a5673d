"""Parameters of `doctor`, which checks image sets."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.base import DeviceParams, FlipParams, Params, SeedParams
from pipeline.params.recipe import DataParams


class CheckupParams(Params):
    near_similarity: float = Field(
        0.85, ge=0.5, le=1, description="similarity from which two images are near duplicates (1: only exact copies)"
    )
    odd_deviations: float = Field(
        5.0,
        ge=2,
        le=100,
        description="number of robust standard deviations beyond which an image counts as blurred or unlike the others",
    )
    max_aspect: float = Field(3.0, ge=1, le=1000, description="largest usual ratio of the long to the short side")
    label_folds: int = Field(4, ge=2, le=20, description="folds of the cross-validation that checks train labels")
    label_epochs: Annotated[int, Field(ge=0, le=1000)] | Literal["auto"] = Field(
        "auto", description="epochs of each training of that cross-validation; 0: labels are not checked"
    )


class DoctorParams(DataParams, FlipParams, DeviceParams, SeedParams, CheckupParams):
    """Finds faults of an image set before you train: duplicates, leaks, suspect labels, odd images."""
