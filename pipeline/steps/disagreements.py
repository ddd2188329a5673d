"""Shows the images on which two compared networks disagree, with the maps of both."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from pipeline import models
from pipeline.explain import attribution
from pipeline.history import trained_model
from pipeline.history.evaluation import Evaluation
from pipeline.history.trained_model import ModelAndImages
from pipeline.params import CompareParams, TrainedModelParams
from pipeline.progress import say
from pipeline.results import plots
from pipeline.tracking.run import Run


def show(run: Run, pair: Mapping[str, Evaluation], params: CompareParams) -> None:
    """Logs a sheet of the images that only one of two networks has right, with the maps of both.

    pair: the evaluation of each network, on the same images, by the letter of its arm.
    """
    first, other = pair
    sides = _right_alone(*(each.predictions for each in pair.values()))
    shown = [side[: params.num_images] for side in sides]
    rows = np.concatenate(shown)
    if not len(rows):
        return
    try:
        found = [_find(each, params) for each in pair.values()]
    except ValueError as error:
        say(f"no sheet of disagreements: {error}")
        return
    test = found[0].splits.test
    places = {name: place for place, name in enumerate(test.names)}
    images = test.take(np.array([places[name] for name in pair[first].predictions["name"].iloc[rows]]))
    panels = [
        _panel(letter, training, images, each.predictions["predicted"].iloc[rows], params)
        for training, (letter, each) in zip(found, pair.items(), strict=True)
    ]
    counts = (f"{letter} {len(some)} of {len(side)}" for some, side, letter in zip(shown, sides, pair, strict=True))
    title = f"Images that only one has right: {', '.join(counts)}; surest errors first; maps of the predicted class"
    captions = [_caption(pair, row) for row in rows]
    run.figure(f"disagreements_{other}.png", plots.explanations(images, panels, captions, title))


def _right_alone(one: pd.DataFrame, other: pd.DataFrame) -> list[np.ndarray]:
    """Rows that only `one` has right, and rows that only `other` has right; the most confident errors first."""
    found = []
    for right, wrong in ((one, other), (other, one)):
        rows = np.flatnonzero((right["true"] == right["predicted"]) & (wrong["true"] != wrong["predicted"]))
        found.append(rows[np.argsort(-wrong["confidence"].to_numpy()[rows], kind="stable")])
    return found


def _find(each: Evaluation, params: CompareParams) -> ModelAndImages:
    return trained_model.find(params.to(TrainedModelParams, run_id=each.train_run_id, checkpoint=each.checkpoint))


def _panel(
    letter: str, trained: ModelAndImages, images: np.ndarray, predicted: pd.Series, params: CompareParams
) -> tuple[str, np.ndarray]:
    """A heading, and maps (B, H, W) in [0, 1]: how much each pixel of `images` speaks for the predicted class."""
    places = {name: place for place, name in enumerate(trained.classifier.classes)}
    if unknown := set(predicted) - places.keys():
        raise ValueError(f"predictions of {trained.run_id} name a class that it does not know: {min(unknown)}")
    model = trained.classifier.model
    inputs = trained.classifier.normalise(torch.from_numpy(images).to(next(model.parameters()).device))
    targets = torch.tensor([places[name] for name in predicted])
    where = models.cam_target(trained.params.model, model)
    method = attribution.choose(params.method, model, where, inputs)
    return f"{letter}, {method}", attribution.class_maps(model, where, inputs, targets, method)


def _caption(pair: Mapping[str, Evaluation], row: int) -> str:
    said = {letter: each.predictions.iloc[row] for letter, each in pair.items()}
    lines = [f"{letter}: {line['predicted']} {line['confidence']:.2f}" for letter, line in said.items()]
    return "\n".join([f"true {next(iter(said.values()))['true']}", *lines])
