"""What a sweep may vary, and how: training parameters as choices and ranges, in Optuna's words."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.params import INTERDEPENDENT, TrainParams
from pipeline.settings import message, nearest, one_line

# The same for all trials, which are compared on the same images and in one number format; and what moves no result.
IMAGES = ("dataset", "data_dir", "labels", "valid_fraction", "limit_train", "limit_test")
APART = ("experiment", "from_study", "storage", *IMAGES)
MACHINE = ("device", "precision", "data_dir", "compile")  # as asked for, may differ between a study's machines
SCHEDULE = ("epochs", "pct_start", "div_factor", "final_div_factor", "anneal")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    when: dict[str, Any] = {}


class Choices(_Entry):
    """One of a few values."""

    choices: tuple[Any, ...] = Field(min_length=1)


class Range(_Entry):
    """From `low` to `high`, both included; on a logarithmic scale with `log`, on a grid with `step`."""

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
        return self


class Trial(Protocol):
    """What Optuna's trials offer to suggest values with."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = ..., log: bool = ...
    ) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = ..., log: bool = ...) -> Any: ...


@dataclass(frozen=True)
class Space:
    """Entries by parameter, in the order they are drawn, around the fixed parameters of all trials."""

    entries: dict[str, Choices | Range]
    base: TrainParams

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The values `trial` is to try, of those parameters whose conditions hold."""
        drawn: dict[str, Any] = {}
        for name, entry in self.entries.items():
            if not self._applies(entry, drawn):
                continue
            if isinstance(entry, Choices):
                drawn[name] = trial.suggest_categorical(name, list(entry.choices))
            elif _is_whole(name):
                step = int(entry.step or 1)
                drawn[name] = trial.suggest_int(name, int(entry.low), int(entry.high), step=step, log=entry.log)
            else:
                drawn[name] = trial.suggest_float(name, entry.low, entry.high, step=entry.step, log=entry.log)
        return drawn

    def params(self, values: Mapping[str, Any]) -> TrainParams:
        """The training that `values` make of the base. Raises ValueError when they do not fit together."""
        try:
            return TrainParams(**{**self.base.model_dump(), **values})
        except ValidationError as error:
            raise ValueError(one_line(error)) from None

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every parameter. Raises ValueError where those are endless, or not all always drawn."""
        values = {}
        for name, entry in self.entries.items():
            if entry.when:
                raise ValueError(f"sampler=grid: {name} has a condition, which a grid does not know")
            if isinstance(entry, Range) and not _is_whole(name) and entry.step is None:
                raise ValueError(f"sampler=grid: {name} needs a step, or choices in a list")
            values[name] = _values(name, entry)
        return values

    def varies(self, *names: str) -> list[str]:
        """Those of `names` that are in the space."""
        return [name for name in names if name in self.entries]

    def allows(self, name: str, value: float) -> bool:
        """Whether `value` lies in the range of `name`."""
        entry = self.entries[name]
        assert isinstance(entry, Range)
        return entry.low <= value <= entry.high

    def narrowed(self, name: str, low: float, high: float) -> "Space":
        """The same space with the range of `name` cut to what lies between `low` and `high`."""
        entry = self.entries[name]
        assert isinstance(entry, Range)
        cut = entry.model_copy(update={"low": max(entry.low, low), "high": min(entry.high, high)})
        return replace(self, entries={**self.entries, name: cut})

    def declared(self) -> dict[str, Any]:
        """Entries and fixed parameters as plain data: what the trials of one study share."""
        own = {name: entry.model_dump(exclude_defaults=True) for name, entry in self.entries.items()}
        fixed = self.base.model_dump(exclude={"experiment", "from_study", "storage", *MACHINE, *own})
        return {**fixed, **{f"space.{name}": entry for name, entry in own.items()}}

    def combinations(self, *names: str) -> Iterator[dict[str, Any]]:
        """Every combination of values of `names`, and of what their conditions ask; of an endless range the ends."""
        wanted = list(names)
        for name in wanted:
            wanted += [asked for asked in self.entries[name].when if asked in self.entries and asked not in wanted]
        yield from self._combine([name for name in self.entries if name in wanted], {})

    def _combine(self, names: list[str], drawn: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not names:
            yield drawn
            return
        entry = self.entries[names[0]]
        if not self._applies(entry, drawn):
            yield from self._combine(names[1:], drawn)
            return
        for value in _values(names[0], entry):
            yield from self._combine(names[1:], {**drawn, names[0]: value})

    def _applies(self, entry: Choices | Range, drawn: Mapping[str, Any]) -> bool:
        return all(
            # What a condition names and was not drawn, because its own did not hold, holds no condition.
            (name in drawn or name not in self.entries)
            and drawn.get(name, getattr(self.base, name)) in (value if isinstance(value, list) else [value])
            for name, value in entry.when.items()
        )


def parse(given: Mapping[str, Any], base: TrainParams) -> Space:
    """The space that an experiment file declares, checked: no value and no combination that a trial would refuse.

    Raises ValueError naming the parameter.
    """
    if not given:
        raise ValueError(
            "space: nothing to vary; give one, such as space='{\"max_lr\": [1e-4, 1e-3, 1e-2]}', or an experiment file "
            "with one, as experiments/sweep_vit.yaml"
        )
    space = Space({name: _entry(name, value) for name, value in given.items()}, base)
    for position, (name, entry) in enumerate(space.entries.items()):
        _check_condition(space, name, entry, list(space.entries)[:position])
    without = next((each for each in space.combinations(*space.varies("max_lr")) if "max_lr" not in each), None)
    if base.max_lr == "auto" and without is not None:
        where = " for " + ", ".join(f"{name}={value}" for name, value in without.items()) if without else ""
        raise ValueError(f"max_lr=auto: in a sweep, give max_lr or put it into the space{where}")
    networks, *others = (space.varies(*names) for names in INTERDEPENDENT)
    possible = list(space.combinations(*networks))
    for values in possible:
        _check(space, values)
    for names in (*others, *([name] for name in space.entries.keys() - {*networks, *itertools.chain(*others)})):
        for values in space.combinations(*names):
            network = next((each for each in possible if each | values == values | each), {})
            _check(space, {**network, **values})
    return space


def _entry(name: str, value: Any) -> Choices | Range:
    known = TrainParams.model_fields
    if name not in known:
        raise ValueError(f"space: no parameter of training is called {name}{nearest(name, known)}")
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
    if isinstance(entry, Choices):
        return entry.model_copy(update={"choices": tuple(_typed(name, choice) for choice in entry.choices)})
    if not _is_whole(name) and not _is_number(name):
        raise ValueError(f"space.{name}: is no number; give a list of choices")
    if _is_whole(name) and any(number % 1 for number in (entry.low, entry.high, entry.step or 1)):
        raise ValueError(f"space.{name}: is a whole number, and so are low, high and step")
    return entry


def _check_condition(space: Space, name: str, entry: Choices | Range, earlier: list[str]) -> None:
    for asked, value in entry.when.items():
        if asked not in TrainParams.model_fields:
            raise ValueError(
                f"space.{name}.when: no parameter is called {asked}{nearest(asked, TrainParams.model_fields)}"
            )
        if asked in space.entries and asked not in earlier:
            raise ValueError(f"space.{name}.when: {asked} must stand before {name}")
        possible = _values(asked, space.entries[asked]) if asked in space.entries else [getattr(space.base, asked)]
        if not any(one in possible for one in (value if isinstance(value, list) else [value])):
            raise ValueError(f"space.{name}.when: {asked} is never {value} (it is {', '.join(map(str, possible))})")


def _check(space: Space, values: Mapping[str, Any]) -> None:
    try:
        space.params(values)
    except ValueError as error:
        raise ValueError(f"space: {error}") from None


def _values(name: str, entry: Choices | Range) -> list[Any]:
    """All values of an entry; of an endless one its ends."""
    if isinstance(entry, Choices):
        return list(entry.choices)
    if _is_whole(name):
        return list(range(int(entry.low), int(entry.high) + 1, int(entry.step or 1)))
    if entry.step is None:
        return [entry.low, entry.high]
    count = int((entry.high - entry.low) / entry.step + 1e-9) + 1
    return [entry.low + i * entry.step for i in range(count)]


def _typed(name: str, value: Any) -> Any:
    """A choice as its parameter's type, since YAML reads 1e-3 as text."""
    if _is_whole(name) or _is_number(name):
        try:
            return int(value) if _is_whole(name) and float(value) % 1 == 0 else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"space.{name}: {value} is no number") from None
    return value


def _is_whole(name: str) -> bool:
    return TrainParams.model_fields[name].annotation is int


def _is_number(name: str) -> bool:
    return name == "max_lr" or TrainParams.model_fields[name].annotation is float
