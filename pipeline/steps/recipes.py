"""The recipes of the trainings in a comparison, and how they differ."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.history.evaluation import Evaluation
from pipeline.params import TrainParams, as_text
from pipeline.settings import FREE_TO_CHANGE
from pipeline.steps.step import Result, Step
from pipeline.text import unmarked, visible

NOT_COMPARED = FREE_TO_CHANGE | {"watch_images", "seed"}  # parameters that may differ within a recipe
DATA_TAG = "data.digest"
LETTERS = "ABCDEF"  # of the arms; colour-blind people can tell at most six colours apart
ALPHA = 0.05  # the level of all comparisons of a run together
TITLE_CHARACTERS = 120


def recipe(each: Evaluation) -> dict[str, str]:
    """The recipe of an arm: step, parameters except the seed, number of networks, checkpoint and images, by name."""
    names = [name for name in TrainParams.model_fields if name not in NOT_COMPARED]
    shown = {name: visible(as_text(getattr(each.params, name))) for name in names}
    networks = visible(each.tags.get("ensemble.size", "1"))
    step = "probe" if each.tags.get("step") == "probe" else "train"
    data = visible(each.tags.get(DATA_TAG, ""))
    return {"step": step, **shown, "networks": networks, "checkpoint": each.checkpoint, DATA_TAG: data}


def differing(firsts: Sequence[Evaluation]) -> dict[str, list[str]]:
    """The parameters that differ between the arms, with the value of each arm. firsts: one evaluation of each arm."""
    rows = [recipe(each) for each in firsts]
    found = {name: [row[name] for row in rows] for name in rows[0] if len({row[name] for row in rows}) > 1}
    named = [name for name in found if name != DATA_TAG]  # a parameter such as image_size also changes the images
    if len({tuple(row[name] for name in named) for row in rows}) == len(rows):
        found.pop(DATA_TAG, None)
    return found or {"seed": [str(each.params.seed) for each in firsts]}


def name(letter: str, differing: Mapping[str, Sequence[str]], place: int) -> str:
    """The name of the recipe at `place`: its letter, and its values of the parameters that differ."""
    return f"{letter}: " + " ".join(f"{each}={values[place]}" for each, values in differing.items())


def title(set_name: str, names: Sequence[str]) -> str:
    """The title of a comparison of the recipes called `names`, without their letters."""
    return f"{set_name}: {' against '.join(each.partition(': ')[2] for each in names)}"[:TITLE_CHARACTERS]


def table(differing: Mapping[str, Sequence[str]], num_arms: int) -> pd.DataFrame:
    """The parameters that differ as a table, with a column for each of the `num_arms` recipes."""
    found = pd.DataFrame.from_dict(dict(differing), orient="index", columns=[*LETTERS[:num_arms]])
    return found.rename_axis("parameter").reset_index()


def conclude(step: Step, names: Sequence[str], lines: Sequence[str]) -> Result:
    """Ends the comparison of the recipes called `names`, whose results are `lines`."""
    if (count := len(names) - 1) > 1:
        lines = [*lines, f"{count} comparisons, each at the level {ALPHA:g}/{count} = {ALPHA / count:.3g}"]
    listed = "".join(f"\n\n{unmarked(name)}" for name in names)
    return step.conclude("\n".join(lines), more=listed, before="".join(f"{name}\n" for name in names))
