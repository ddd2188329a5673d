"""Checks a recipe before it trains, and says what it starts from and what will not work well."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from pipeline import models
from pipeline.data.batches import train_sizes
from pipeline.models import catalogue
from pipeline.models.stages import Frozen
from pipeline.models.weights import Pretrained
from pipeline.params import ProbeParams, RecipeParams, TrainParams
from pipeline.training import compilation, costs, device, recomputation
from pipeline.training.recipe import Recipe, load

log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A recipe ready to train, with lines for the user."""

    recipe: Recipe
    notes: list[str]
    warnings: list[str]


def prepare(params: RecipeParams, pretrained: Pretrained | None = None) -> Prepared:
    """Loads and checks the recipe. Raises ValueError, before weights are allocated, if anything does not fit."""
    recipe = load(params, pretrained)
    notes = describe(recipe)
    trains = not isinstance(params, ProbeParams)
    reason = ""
    if params.precision == "auto" and trains and device.trains_faster_in_fp32(recipe.outline(), recipe.device):
        recipe = replace(recipe, precision="fp32")
        reason = "a CPU trains depthwise convolutions with batch norms faster in fp32"
    log.info(device.chosen(params, recipe.device, recipe.precision, reason))
    return Prepared(recipe, notes, warnings(recipe))


def describe(recipe: Recipe) -> list[str]:
    """The starting weights and the frozen stages, one line each.

    Raises ValueError if weights, network, machine and parameters do not fit together. Allocates no weights for that.
    """
    params, start = recipe.params, recipe.pretrained
    first_size = 0
    if isinstance(params, TrainParams):
        first_size = params.first_size
        compilation.check(params.compile, recipe.device)
        if recipe.recomputes:
            recomputation.recompute(recipe.outline())
        if params.watch_images and recipe.splits.valid is None:
            raise ValueError(f"watch_images={params.watch_images}: there is no validation split to take them from")
    # A probe trains on no batches.
    last_batch = 2 if isinstance(params, ProbeParams) else train_sizes(len(recipe.splits.train), params.batch_size)[-1]
    models.check_size(params.model, params.image_size, last_batch, first_size, **params.network_options())
    if start is None:
        return []
    outline = recipe.outline()
    lines = [f"starting from {start.source}: {recipe.fitted(outline).head}"]
    if not _lacks_normalisation(recipe):
        lines.append(_normalisation(recipe))
    if start.interpolation is not None:
        lines.append(f"images scaled as these weights need it: {start.interpolation}")
    if start.image_size is not None and start.image_size < params.image_size:
        made = f"{start.image_size} px"
        lines.append(f"image_size={params.image_size} differs from the {made} these weights were made for")
    if (frozen := recipe.frozen(outline)) is not None:
        lines.append(_frozen_stages(frozen, outline))
    return lines


def warnings(recipe: Recipe) -> list[str]:
    """One line for each setting that wastes the starting weights or does not fit in memory, with a better value."""
    size, made = recipe.params.image_size, None if recipe.pretrained is None else recipe.pretrained.image_size
    lines = [shortage] if (shortage := _shortage(recipe)) else []
    if _lacks_normalisation(recipe):
        usual = catalogue.find(recipe.params.model)
        mean, std = (_numbers(values, ",") for values in (usual.mean, usual.std))
        known = f"its default weights need mean={mean} std={std}" if mean else "give mean and std if you know them"
        lines.append(f"{_normalisation(recipe)}: these weights do not say what they need; {known}")
    if made is not None and made > size:
        lines.append(
            f"image_size={size}: these weights were made for {made} px, and do worse here; give image_size={made}"
        )
    return lines


def _lacks_normalisation(recipe: Recipe) -> bool:
    """Whether the starting weights need a mean or a std that neither they nor the user give."""
    params, start = recipe.params, recipe.pretrained
    return start is not None and "auto" in (start.mean or params.mean, start.std or params.std)


def _normalisation(recipe: Recipe) -> str:
    assert recipe.pretrained is not None
    by = []
    for name in ("mean", "std"):
        of_weights = "this set's" if getattr(recipe.pretrained, name) is None else "these weights'"
        whose = of_weights if getattr(recipe.params, name) == "auto" else "the given"
        by.append(f"{whose} {name} {_numbers(getattr(recipe.splits, name))}")
    return f"normalised by {' and '.join(by)}"


def _shortage(recipe: Recipe) -> str:
    params = recipe.params
    if isinstance(params, ProbeParams) or params.batch_size * params.image_size**2 <= costs.WORTH_COUNTING:
        return ""
    outline = recipe.outline().to("meta").train()
    if not params.unfreeze_epoch and (frozen := recipe.frozen(outline)) is not None:
        frozen.begin(1)
    sizes = params.batch_size, params.image_size
    return costs.shortage(outline, *sizes, recipe.device, recipe.precision, params.accumulate, recipe.recomputes)


def _frozen_stages(frozen: Frozen, model: nn.Module) -> str:
    still = sum(parameter.numel() for stage in frozen.stages for parameter in stage.parameters)
    all_of_it = sum(parameter.numel() for parameter in model.parameters())
    names = ", ".join(stage.name for stage in frozen.stages)
    return f"frozen: {names} ({still:,} of {all_of_it:,} parameters)"


def _numbers(values: Iterable[float] | None, between: str = " ") -> str:
    return between.join(f"{value:.4g}" for value in values or ())
