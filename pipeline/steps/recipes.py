"""The recipes of the trainings in a comparison, and how they differ."""

from collections.abc import Mapping, Sequence

from pipeline.history.evaluation import Evaluation
from pipeline.params import TrainParams, as_text
from pipeline.settings import FREE_TO_CHANGE
from pipeline.text import visible

OF_NO_RECIPE = FREE_TO_CHANGE | {"watch_images"}
DATA = "data.digest"
ALPHA = 0.05  # the level of all comparisons of a run together
TITLE_CHARACTERS = 120


def of(each: Evaluation) -> dict[str, str]:
    """The step, parameters, number of networks, checkpoint and images of an arm: all that makes it, except the seed."""
    names = [name for name in TrainParams.model_fields if name not in OF_NO_RECIPE | {"seed"}]
    shown = {name: visible(as_text(getattr(each.params, name))) for name in names}
    networks = visible(each.tags.get("ensemble.size", "1"))
    step = "probe" if each.tags.get("step") == "probe" else "train"
    data = visible(each.tags.get(DATA, ""))
    return {"step": step, **shown, "networks": networks, "checkpoint": each.checkpoint, DATA: data}


def differing(firsts: Sequence[Evaluation]) -> dict[str, list[str]]:
    """The parameters that differ between the arms, with the value of each arm."""
    rows = [of(each) for each in firsts]
    found = {name: [row[name] for row in rows] for name in rows[0] if len({row[name] for row in rows}) > 1}
    named = [name for name in found if name != DATA]  # a parameter such as image_size also changes the images
    if len({tuple(row[name] for name in named) for row in rows}) == len(rows):
        found.pop(DATA, None)
    return found or {"seed": [str(each.params.seed) for each in firsts]}


def name(letter: str, differing: Mapping[str, Sequence[str]], place: int) -> str:
    """The name of the recipe at `place`: its letter, and its values of the parameters that differ."""
    return f"{letter}: " + " ".join(f"{each}={values[place]}" for each, values in differing.items())
