"""The attributes that this project stores with a study and its trials. They are checked before they are used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from pipeline.params import TrainParams
from pipeline.params.base import nearest
from pipeline.settings import message

NOT_PARAMETERS = {"objectives", "data", "precision"}  # declared values that are not parameters of a training
READ_ERRORS = (ValueError, LookupError, TypeError, AttributeError, RecursionError, SQLAlchemyError)  # from Optuna

RunId = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]


class Notes(BaseModel):
    """The notes of a study; a new study has none of them."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    declared: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    narrowed: dict[Literal["max_lr"], tuple[float, float]] = {}
    run_id: RunId = Field("", alias="mlflow.run_id")

    def parameters(self, tried: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a training with the values that a trial `tried`. Raises ValueError for unknown names."""
        shared = {
            name: value
            for name, value in self.declared.items()
            if name not in NOT_PARAMETERS and not name.startswith("space.")
        }
        found = {**shared, **self.machine, **tried}
        for name in found:
            if name not in TrainParams.model_fields:
                raise ValueError(f"no parameter of training is called {name}{nearest(name, TrainParams.model_fields)}")
        return found


class TrialNotes(BaseModel):
    """The notes of a trial."""

    process: dict[str, str] = {}
    run_id: RunId = Field("", alias="mlflow.run_id")
    goes_on_with: RunId = ""
    error: str = ""


class Study(Protocol):
    """The part of Optuna's studies that this module uses."""

    study_name: str

    @property
    def directions(self) -> Any: ...
    @property
    def user_attrs(self) -> dict[str, Any]: ...
    def get_trials(self, *, deepcopy: bool) -> Any: ...


def read(study: Study) -> Notes:
    """The study's notes. Raises ValueError if its notes, or the notes or values of a trial, are not valid."""
    for trial in study.get_trials(deepcopy=False):
        TrialNotes.model_validate(trial.user_attrs)
        if trial.state.name == "COMPLETE" and list(map(type, trial.values or ())) != [float] * len(study.directions):
            raise ValueError(f"trial {trial.number} is COMPLETE but does not have one value per objective")
    return Notes.model_validate(study.user_attrs)


@contextmanager
def checked(study_name: str) -> Iterator[None]:
    """Inside this context, invalid content of the study's database raises a ValueError with one line."""
    try:
        yield
        return
    except ValidationError as error:
        reason = "; ".join(f"{each['loc'][0]} {message(each)}" for each in error.errors())
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"study {study_name} is not from this project, or is damaged ({reason})")
