"""Parameters of a whole experiment: the steps to run, and the parameters of all steps."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.params.base import comma_separated
from pipeline.params.doctor import CheckupParams
from pipeline.params.inspection import EvaluationParams, ExplanationParams, FileFormatParams
from pipeline.params.training import LadderParams, SeriesParams, SweepParams

StepName = Literal["doctor", "lr_range", "probe", "sweep", "train", "evaluate", "explain", "export"]
AT_A_GIVEN_RATE: tuple[StepName, ...] = ("train", "evaluate", "explain")  # the default steps, if max_lr is given


class MainParams(
    SweepParams, LadderParams, EvaluationParams, ExplanationParams, FileFormatParams, CheckupParams, SeriesParams
):
    """Runs a whole experiment: several steps in order, under one parent run."""

    steps: Annotated[tuple[StepName, ...], BeforeValidator(comma_separated)] = Field(
        ("lr_range", *AT_A_GIVEN_RATE),
        min_length=1,
        description="steps to run, in order; with a max_lr that is a number, the default has no lr_range",
    )

    @model_validator(mode="before")
    @classmethod
    def a_given_rate_needs_no_range_test(cls, given: Any) -> Any:
        return given if given.get("max_lr", "auto") == "auto" else {"steps": AT_A_GIVEN_RATE, **given}

    @model_validator(mode="after")
    def several_seeds_need_a_training(self) -> Self:
        if self.num_seeds > 1 and "train" not in self.steps:
            raise ValueError(f"num_seeds={self.num_seeds}: train is not among the steps {','.join(self.steps)}")
        return self

    @model_validator(mode="after")
    def each_fold_is_trained_alone(self) -> Self:
        if self.folds and not self.fold:
            if self.num_seeds > 1:
                raise ValueError(f"folds={self.folds} and num_seeds={self.num_seeds}: give one of them")
            if unfit := [step for step in self.steps if step in ("doctor", "sweep")]:
                raise ValueError(f"folds={self.folds}: {unfit[0]} is not run once per fold; leave it out of the steps")
            if self.register_as:
                raise ValueError(f"folds={self.folds} and register_as={self.register_as}: no fold has all images")
        return self

    @model_validator(mode="after")
    def a_registered_model_is_evaluated(self) -> Self:
        if self.register_as and "evaluate" not in self.steps:
            raise ValueError(f"register_as={self.register_as}: evaluate is not among the steps {','.join(self.steps)}")
        return self
