"""The contact sheet of predictions: the most doubtful images first, with maps if requested."""

import numpy as np
import torch

from pipeline import models
from pipeline.explain import attribution
from pipeline.history.trained_model import TrainedModel
from pipeline.results import plots
from pipeline.results.answers import Answers
from pipeline.tracking.run import Run


def log(run: Run, network: TrainedModel, shown: Answers, with_maps: bool) -> None:
    """Logs the images of `shown` as contact_sheet.png, each with its predicted class."""
    classes = network.classifier.classes
    unlike = [False] * len(shown) if shown.unlike is None else shown.unlike
    captions = [
        f"{path.rpartition('/')[2]}\n{'unlike, ' if is_unlike else ''}{classes[predicted]} {confidence:.2f}"
        for path, is_unlike, predicted, confidence in zip(
            shown.paths, unlike, shown.predicted, shown.confidence, strict=True
        )
    ]
    title = f"{len(shown)} predicted images, the most doubtful ones first"
    if with_maps:
        method, found = maps(network, shown.images, shown.predicted)
        panels = [(f"{method}, predicted class", found)]
        figure = plots.explanations(shown.images, panels, captions, title)
    else:
        figure = plots.gallery(shown.images, captions, title)
    run.figure("contact_sheet.png", figure)


def maps(network: TrainedModel, images: np.ndarray, predicted: np.ndarray) -> tuple[str, np.ndarray]:
    """The attribution method that suits the network, and its maps (N, H, W) in [0, 1] for the predicted classes.

    images: (N, 3, H, W) uint8. predicted: (N,) int64. Raises ValueError for a network without a layer with a grid.
    """
    model = network.classifier.model
    where = models.cam_target(network.params.model, model)
    inputs = network.classifier.normalise(torch.from_numpy(images).to(next(model.parameters()).device))
    method = attribution.choose(attribution.AUTO, model, where, inputs)
    return method, attribution.class_maps(model, where, inputs, torch.from_numpy(predicted), method)
