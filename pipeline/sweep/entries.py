"""How a sweep varies one parameter: choices or a range, checked, its values in the parameter's type."""

from decimal import Decimal
from functools import cache
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pipeline.params import TrainParams
from pipeline.params.base import nearest
from pipeline.progress import say
from pipeline.settings import message

# The same for all trials, which are compared on the same images and in one number format; and what moves no result.
IMAGES = ("dataset", "data_dir", "labels", "valid_fraction", "valid_as_test", "limit_train", "limit_test")
APART = ("experiment", "from_study", "storage", *IMAGES)
MACHINE = ("device", "precision", "data_dir", "compile")  # as asked for, may differ between a study's machines
MOST_STEPS = 10_000  # of a range


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, Any] = {}


class Choices(_Entry):
    """One of a few values."""

    choices: tuple[Any, ...] = Field(min_length=1)


class Range(_Entry):
    """From `low` to `high`, both included; on a logarithmic scale with `log`, on a grid from `low` with `step`."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range starts above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and (self.high - self.low) / self.step > MOST_STEPS:
            raise ValueError(f"{self.step:g} makes more than {MOST_STEPS:,} steps: give a larger step, or none")
        return self


def parse(name: str, value: Any) -> Choices | Range:
    """What an experiment file declares for parameter `name`. Raises ValueError naming it."""
    known = TrainParams.model_fields
    if name not in known:
        raise ValueError(f"space: no parameter of training is called {name}{nearest(name, known)}")
    if name == "seed":
        raise ValueError("space: seed makes no recipe better; num_seeds trains one with several")
    if name in APART or name in MACHINE:
        raise ValueError(f"space: {name} is the same for all trials of a study, or they could not be compared")
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
    """All values of an entry, in order; of an endless one its ends."""
    if isinstance(entry, Choices):
        return list(entry.choices)
    if is_whole(name):
        return list(range(int(entry.low), int(entry.high) + 1, int(entry.step or 1)))
    if entry.step is None:
        return [entry.low, entry.high]
    count = int((_decimal(entry.high) - _decimal(entry.low)) // _decimal(entry.step)) + 1
    return [on_grid(entry.low + number * entry.step, entry.low, entry.step) for number in range(count)]


def on_grid(value: float, low: float, step: float) -> float:
    """The value nearest to `value` among low, low + step, ..., as a person writes it: 0.3 for 0.1 + 2 * 0.1."""
    number = round((_decimal(value) - _decimal(low)) / _decimal(step))
    return float(_decimal(low) + number * _decimal(step))


def is_whole(name: str) -> bool:
    """Whether the parameter is a whole number."""
    return TrainParams.model_fields[name].annotation is int


def _check_range(name: str, entry: Range) -> None:
    if not is_whole(name) and not _is_number(name):
        raise ValueError(f"space.{name}: is no number; give a list of choices")
    if is_whole(name) and any(number % 1 for number in (entry.low, entry.high, entry.step or 1)):
        raise ValueError(f"space.{name}: is a whole number, and so are low, high and step")
    highest = values(name, entry)[-1]
    if highest < entry.high:
        steps = f"steps of {entry.step:g} from {entry.low:g} do not end at {entry.high:g}"
        say(f"space.{name}: {steps}; the highest value is {highest:g}")


def _choice(name: str, value: Any) -> Any:
    """A choice as its parameter's type, since YAML reads 1e-3 as text."""
    if not is_whole(name) and not _is_number(name):
        return _typed(name, value)
    try:
        if isinstance(value, bool):
            raise TypeError
        return int(value) if is_whole(name) and float(value) % 1 == 0 else float(value)
    except (TypeError, ValueError):
        raise ValueError(f"space.{name}: {value} is no number") from None


def _all_typed(name: str, given: Any) -> Any:
    """What a condition asks of a parameter, one value or a list of them, as the parameter's type."""
    return [_typed(name, value) for value in given] if isinstance(given, list) else _typed(name, given)


def _typed(name: str, value: Any) -> Any:
    """`value` as the parameters read it, such as `on` for YAML's true; as it is where they would refuse it."""
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
