"""What this project notes with a study and its trials, checked before anything is made of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from pipeline.params import TrainParams
from pipeline.params.base import nearest
from pipeline.settings import message

APART = {"objectives", "data", "precision"}  # of what is declared: shared by the trials, and no parameters
STRANGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, SQLAlchemyError)  # Optuna's, reading it

RunId = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]


class Notes(BaseModel):
    """With a study; all of them are missing in a new one."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    declared: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    narrowed: dict[Literal["max_lr"], tuple[float, float]] = {}
    run_id: RunId = Field("", alias="mlflow.run_id")

    def parameters(self, tried: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a training with the values a trial has tried. Raises ValueError for others."""
        shared = {
            name: value for name, value in self.declared.items() if name not in APART and not name.startswith("space.")
        }
        found = {**shared, **self.machine, **tried}
        for name in found:
            if name not in TrainParams.model_fields:
                raise ValueError(f"no parameter of training is called {name}{nearest(name, TrainParams.model_fields)}")
        return found


class TrialNotes(BaseModel):
    """With a trial."""

    process: dict[str, str] = {}
    run_id: RunId = Field("", alias="mlflow.run_id")
    goes_on_with: RunId = ""
    error: str = ""


class Study(Protocol):
    """What Optuna's studies offer of this."""

    study_name: str

    @property
    def directions(self) -> Any: ...
    @property
    def user_attrs(self) -> dict[str, Any]: ...
    def get_trials(self, *, deepcopy: bool) -> Any: ...


def read(study: Study) -> Notes:
    """The study's notes, once those of its trials are checked, and their values."""
    for trial in study.get_trials(deepcopy=False):
        TrialNotes.model_validate(trial.user_attrs)
        if trial.state.name == "COMPLETE" and list(map(type, trial.values or ())) != [float] * len(study.directions):
            raise ValueError(f"trial {trial.number} is complete and has not one value per objective")
    return Notes.model_validate(study.user_attrs)


@contextmanager
def checked(study_name: str) -> Iterator[None]:
    """Within, whatever comes of a database that others wrote to is a ValueError in one line."""
    try:
        yield
        return
    except ValidationError as error:
        reason = "; ".join(f"{each['loc'][0]} {message(each)}" for each in error.errors())
    except STRANGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"study {study_name} is not one of this project, or damaged ({reason})")
