"""The space that a sweep searches: choices and ranges for parameters of a training, suggested through Optuna."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import ValidationError

from pipeline.params import INTERDEPENDENT, TrainParams
from pipeline.params.base import nearest
from pipeline.settings import one_line
from pipeline.sweep import entries
from pipeline.sweep.entries import MACHINE, Choices, Range, is_whole

SCHEDULE = ("epochs", "pct_start", "div_factor", "final_div_factor", "anneal")


class Trial(Protocol):
    """The part of Optuna's trials that suggests values."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = ..., log: bool = ...
    ) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = ..., log: bool = ...) -> Any: ...


@dataclass(frozen=True)
class Space:
    """The entries by parameter, in the order in which they are drawn, and the fixed parameters of all trials."""

    entries: dict[str, Choices | Range]
    base: TrainParams

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """The values for `trial` to try. A parameter is left out if its condition does not hold."""
        drawn: dict[str, Any] = {}
        for name, entry in self.entries.items():
            if not self._applies(entry, drawn):
                continue
            if isinstance(entry, Choices):
                drawn[name] = trial.suggest_categorical(name, list(entry.choices))
                continue
            possible = entries.values(name, entry)
            low, high = possible[0], possible[-1]
            if is_whole(name):
                drawn[name] = trial.suggest_int(name, low, high, step=int(entry.step or 1), log=entry.log)
            else:
                drawn[name] = trial.suggest_float(name, low, high, step=entry.step, log=entry.log)
        return drawn

    def params(self, values: Mapping[str, Any]) -> TrainParams:
        """The parameters of a training: the base with `values`. Raises ValueError if they contradict each other."""
        try:
            return TrainParams(**{**self.base.model_dump(), **values})
        except ValidationError as error:
            raise ValueError(one_line(error)) from None

    def grid(self) -> dict[str, list[Any]]:
        """Every value of every parameter. Raises ValueError for a continuous range or an entry with a condition."""
        values = {}
        for name, entry in self.entries.items():
            if entry.when:
                raise ValueError(f"sampler=grid: {name} has a condition, which a grid does not support")
            if isinstance(entry, Range) and not is_whole(name) and entry.step is None:
                raise ValueError(f"sampler=grid: {name} needs a step, or choices in a list")
            values[name] = entries.values(name, entry)
        return values

    def varies(self, *names: str) -> list[str]:
        """The `names` that are in the space."""
        return [name for name in names if name in self.entries]

    def allows(self, name: str, value: float) -> bool:
        """Whether `value` is in the range of `name`, and on its grid if it has one."""
        entry = self.entries[name]
        assert isinstance(entry, Range)
        is_on_grid = entry.step is None or value in entries.values(name, entry)
        return is_on_grid and entry.low <= value <= entry.high

    def narrowed(self, name: str, low: float, high: float) -> "Space":
        """The same space, with the range of `name` cut to `low` to `high`. Its grid keeps its values."""
        entry = self.entries[name]
        assert isinstance(entry, Range)
        low, high = max(entry.low, low), min(entry.high, high)
        if entry.step is not None:
            grid = entries.values(name, entry)
            inside = [value for value in grid if low <= value <= high] or grid
            low, high = inside[0], inside[-1]
        cut = entry.model_copy(update={"low": low, "high": high})
        return replace(self, entries={**self.entries, name: cut})

    def declared(self) -> dict[str, Any]:
        """The entries and fixed parameters as plain data. All trials of a study share them."""
        own = {name: entry.model_dump(exclude_defaults=True) for name, entry in self.entries.items()}
        fixed = self.base.model_dump(exclude={"experiment", "from_study", "storage", *MACHINE, *own})
        return {**fixed, **{f"space.{name}": entry for name, entry in own.items()}}

    def combinations(self, *names: str) -> Iterator[dict[str, Any]]:
        """Every combination of values of `names` and of the parameters in their conditions.

        A continuous range contributes its two ends.
        """
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
        for value in entries.values(names[0], entry):
            yield from self._combine(names[1:], {**drawn, names[0]: value})

    def _applies(self, entry: Choices | Range, drawn: Mapping[str, Any]) -> bool:
        return all(
            # A parameter of the space that was not drawn fulfils no condition.
            (name in drawn or name not in self.entries)
            and drawn.get(name, getattr(self.base, name)) in (value if isinstance(value, list) else [value])
            for name, value in entry.when.items()
        )


def parse(given: Mapping[str, Any], base: TrainParams) -> Space:
    """The space that an experiment file declares. Every value and combination is checked before the first trial.

    Raises ValueError that names the parameter if a trial would refuse a value or a combination.
    """
    if not given:
        raise ValueError(
            "space: nothing to vary; give a space, such as space='{\"max_lr\": [1e-4, 1e-3, 1e-2]}', or an experiment "
            "file with a space, such as experiments/sweep_vit.yaml"
        )
    space = Space({name: entries.parse(name, value) for name, value in given.items()}, base)
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


def _check_condition(space: Space, name: str, entry: Choices | Range, earlier: list[str]) -> None:
    for asked, value in entry.when.items():
        if asked not in TrainParams.model_fields:
            raise ValueError(
                f"space.{name}.when: no parameter is called {asked}{nearest(asked, TrainParams.model_fields)}"
            )
        if asked in space.entries and asked not in earlier:
            raise ValueError(f"space.{name}.when: {asked} must come before {name}")
        varied = space.entries.get(asked)
        possible = [getattr(space.base, asked)] if varied is None else entries.values(asked, varied)
        if not any(each in possible for each in (value if isinstance(value, list) else [value])):
            raise ValueError(f"space.{name}.when: {asked} is never {value} (it is {', '.join(map(str, possible))})")


def _check(space: Space, values: Mapping[str, Any]) -> None:
    try:
        space.params(values)
    except ValueError as error:
        raise ValueError(f"space: {error}") from None
