"""The samplers, by name, that suggest the values of a study's trials."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from pipeline.sweep.entries import on_grid
from pipeline.sweep.space import Space

SAMPLERS: dict[str, Callable[[int, Space], BaseSampler]] = {
    "tpe": lambda seed, space: optuna.samplers.TPESampler(seed=seed),
    "random": lambda seed, space: optuna.samplers.RandomSampler(seed=seed),
    # The seed is fixed because all workers must see the grid in the same order: they identify its points by position.
    "grid": lambda seed, space: optuna.samplers.GridSampler(space.grid(), seed=0),
    "gp": lambda seed, space: optuna.samplers.GPSampler(seed=seed),
    "nsgaii": lambda seed, space: optuna.samplers.NSGAIISampler(seed=seed),
}


class OnGrid(BaseSampler):
    """Wraps a sampler, and moves each value of a stepped range exactly onto its step."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        found: Mapping[str, Any] = self._sampler.sample_relative(study, trial, search_space)
        return {name: _exact(value, search_space[name]) for name, value in found.items()}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        found = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return _exact(found, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()


def _exact(value: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return on_grid(value, distribution.low, distribution.step)
    return value
