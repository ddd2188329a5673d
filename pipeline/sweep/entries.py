"""One entry of a sweep's space: choices or a range for one parameter, checked and converted to its type."""

from decimal import Decimal
from functools import cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.params import TrainParams
from pipeline.params.base import nearest
from pipeline.progress import say
from pipeline.settings import message

# All trials use the same images and one number format, so that they can be compared.
IMAGES = ("dataset", "data_dir", "labels", "valid_fraction", "valid_as_test")
PARTS = ("limit_train", "limit_test", "limit_seed", "folds", "fold")
NORMALISED = ("mean", "std")  # have right values, which no trial needs to find
FIXED = ("experiment", "from_study", "storage", "select_by", *IMAGES, *PARTS, *NORMALISED)
MACHINE = ("device", "precision", "data_dir", "compile")  # may differ between the machines of a study
MOST_STEPS = 10_000  # of a range


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, Any] = {}


class Choices(_Entry):
    """A choice between a few values."""

    choices: tuple[Any, ...] = Field(min_length=1)


class Range(_Entry):
    """A range from `low` to `high`, both included: logarithmic with `log`, a grid that starts at `low` with `step`."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range must start above 0")
        if self.log and self.step is not None:
            raise ValueError("give log or step, not both")
        if self.step is not None and (self.high - self.low) / self.step > MOST_STEPS:
            raise ValueError(f"step {self.step:g} gives more than {MOST_STEPS:,} values: give a larger step, or none")
        return self


def parse(name: str, value: Any) -> Choices | Range:
    """The entry for parameter `name`, from its `value` in an experiment file. Raises ValueError that names it."""
    known = TrainParams.model_fields
    if name not in known:
        raise ValueError(f"space: no parameter of training is called {name}{nearest(name, known)}")
    if name == "seed":
        raise ValueError("space: seed cannot be varied, as no seed is better; num_seeds trains with several seeds")
    if name in FIXED or name in MACHINE:
        raise ValueError(f"space: {name} must be the same for all trials of a study, so that they can be compared")
    if isinstance(value, list):
        value = {"choices": value}
    if not isinstance(value, dict):
        raise ValueError(f"space.{name}: expected a list of choices, or low and high, found {value!r}")
    try:
        entry = Choices(**value) if "choices" in value else Range(**value)
    except ValidationError as error:
        detail = error.errors()[0]
        raise ValueError(f"space.{'.'.join([name, *map(str, detail['loc'])])}: {message(detail)}") from None
    entry = entry.model_copy(update={"when": {asked: _all_typed(asked, each) for asked, each in entry.when.items()}})
    if isinstance(entry, Choices):
        return entry.model_copy(update={"choices": tuple(_choice(name, choice) for choice in entry.choices)})
    _check_range(name, entry)
    return entry


def values(name: str, entry: Choices | Range) -> list[Any]:
    """All values of an entry, in order; for a continuous range, its two ends."""
    if isinstance(entry, Choices):
        return list(entry.choices)
    if is_whole(name):
        return list(range(int(entry.low), int(entry.high) + 1, int(entry.step or 1)))
    if entry.step is None:
        return [entry.low, entry.high]
    count = int((_decimal(entry.high) - _decimal(entry.low)) // _decimal(entry.step)) + 1
    return [on_grid(entry.low + number * entry.step, entry.low, entry.step) for number in range(count)]


def on_grid(value: float, low: float, step: float) -> float:
    """The value nearest to `value` among low, low + step, ..., without rounding errors: 0.3 for 0.1 + 2 * 0.1."""
    number = round((_decimal(value) - _decimal(low)) / _decimal(step))
    return float(_decimal(low) + number * _decimal(step))


def is_whole(name: str) -> bool:
    """Whether the parameter is a whole number."""
    return TrainParams.model_fields[name].annotation is int


def _check_range(name: str, entry: Range) -> None:
    if not is_whole(name) and not _is_number(name):
        raise ValueError(f"space.{name}: is not a number; give a list of choices")
    if is_whole(name) and any(number % 1 for number in (entry.low, entry.high, entry.step or 1)):
        raise ValueError(f"space.{name}: is a whole number, so low, high and step must be whole numbers")
    if is_whole(name) and (entry.high - entry.low) / (entry.step or 1) > MOST_STEPS:
        raise ValueError(f"space.{name}: has more than {MOST_STEPS:,} values: give a larger step, or a narrower range")
    highest = values(name, entry)[-1]
    if highest < entry.high:
        steps = f"steps of {entry.step:g} from {entry.low:g} do not end at {entry.high:g}"
        say(f"space.{name}: {steps}; the highest value is {highest:g}")


def _choice(name: str, value: Any) -> Any:
    """A choice in its parameter's type: YAML, for example, reads 1e-3 as text."""
    if not is_whole(name) and not _is_number(name):
        return _typed(name, value)
    try:
        if isinstance(value, bool):
            raise TypeError
        return int(value) if is_whole(name) and float(value) % 1 == 0 else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"space.{name}: {value} is not a number") from None


def _all_typed(name: str, given: Any) -> Any:
    """The value, or list of values, in a condition on parameter `name`, in its type."""
    return [_typed(name, value) for value in given] if isinstance(given, list) else _typed(name, given)


def _typed(name: str, value: Any) -> Any:
    """`value` as the parameter reads it, such as `on` for YAML's true; unchanged if the parameter refuses it."""
    try:
        return _reader(name).validate_python(value) if name in TrainParams.model_fields else value
    except ValidationError:
        return value


@cache
def _reader(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(TrainParams.model_fields[name].rebuild_annotation())


def _is_number(name: str) -> bool:
    return name == "max_lr" or TrainParams.model_fields[name].annotation is float


def _decimal(number: float) -> Decimal:
    return Decimal(repr(float(number)))
