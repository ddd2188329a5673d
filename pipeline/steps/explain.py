"""Explanation as a tracked step: where the trained model looks when it errs and when it is right."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from pipeline import models
from pipeline.data.batches import NormalisedBatches, batch_size
from pipeline.explain import attribution, faithfulness
from pipeline.explain.faithfulness import Faithfulness
from pipeline.history import trained_model
from pipeline.history.trained_model import ModelAndImages
from pipeline.models.ultimus import Ultimus
from pipeline.params import ExplainParams
from pipeline.results import plots, sprite
from pipeline.steps.step import Result, about
from pipeline.tracking.run import Run
from pipeline.training.update import predict

LARGEST_BATCH = 512
SMALL_SIDE = 160  # px, of the images and maps kept for the report

ATTENTION: dict[type[nn.Module], Callable[..., np.ndarray]] = {
    VisionTransformer: attribution.attention_rollout,
    Ultimus: attribution.attention_matrices,
}


@dataclass(frozen=True)
class Chosen:
    """Test images to explain, n of them: as stored, as the model takes them, and what it says of them."""

    kind: str
    names: list[str]
    images: np.ndarray  # (n, 3, H, W) uint8
    inputs: Tensor  # (n, 3, H, W) float32
    true: np.ndarray  # (n,) int64
    predicted: np.ndarray  # (n,) int64
    probabilities: np.ndarray  # (n, C)


def run(params: ExplainParams, parent: Run | None = None) -> Result:
    """Explains the training that `params` name, on its test images."""
    trained = trained_model.find(params)
    with about(trained, "explain", params.method, params, "test", parent) as step:
        run = step.run
        chosen = [each for each in _choose(trained, params.num_images) if each.names]
        _keep_images(run, trained, chosen)
        maps = _keep_maps(run, [_picture(run, trained, each, params.method) for each in chosen])
        blank = maps["blank"]
        numbers = {"explain/blank_maps": float(blank.sum())}
        if (grid := _grid(trained)) == (1, 1):
            size = trained.params.image_size
            finding = f"{params.method} has one cell for a whole image of {size} px here, which says nothing of where"
        else:
            finding, measured = _faithfulness(run, step.name, trained, chosen, params, grid)
            numbers |= measured
        run.metrics(numbers, model_of=trained.model_of)
        of = f" of {run.link('this training', trained.run_id)}{trained.checkpoint_note}"
        return step.conclude(f"{finding}; {blank.sum()} of {len(blank)} maps blank", numbers, of=of)


def _choose(trained: ModelAndImages, num_images: int) -> list[Chosen]:
    """The most confident errors, and as many hits spread evenly over the test split."""
    labels = trained.splits.test.labels
    size = batch_size(trained.params.image_size, LARGEST_BATCH)
    batches = NormalisedBatches(trained.splits, trained.splits.test, size, _device(trained))
    logits, _ = predict(trained.classifier.model, batches, trained.precision)
    probabilities = logits.softmax(1).numpy()
    predicted = probabilities.argmax(1)
    wrong, right = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    surest_first = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    spread = right[np.linspace(0, max(len(right) - 1, 0), min(num_images, len(right))).astype(int)]
    take = partial(_take, trained, probabilities)
    return [take("misclassified", surest_first[:num_images]), take("correct", spread)]


def _take(trained: ModelAndImages, probabilities: np.ndarray, kind: str, positions: np.ndarray) -> Chosen:
    test = trained.splits.test
    images = test.take(positions)
    return Chosen(
        kind,
        [test.names[position] for position in positions],
        images,
        trained.classifier.normalise(torch.from_numpy(images).to(_device(trained))),
        test.labels[positions],
        probabilities[positions].argmax(axis=1),
        probabilities[positions],
    )


def _keep_images(run: Run, trained: ModelAndImages, chosen: list[Chosen]) -> None:
    """Logs the images in small, and what the model made of them."""
    classes = np.array(trained.splits.classes, dtype=object)
    file, places = sprite.sprite(np.concatenate([each.images for each in chosen]), SMALL_SIDE)
    run.bytes("explain/images.webp", file)
    described = pd.concat(
        pd.DataFrame(
            {
                "image": each.names,
                "kind": each.kind,
                "true": classes[each.true],
                "predicted": classes[each.predicted],
                "confidence": each.probabilities.max(axis=1),
                "probability_of_true": each.probabilities[np.arange(len(each.true)), each.true],
            }
        )
        for each in chosen
    )
    run.table("explain/images.csv", pd.concat([described.reset_index(drop=True), places], axis=1))


def _keep_maps(run: Run, pictured: list[tuple[pd.DataFrame, np.ndarray]]) -> pd.DataFrame:
    """Logs all maps in small, and the table of them, which it returns."""
    file, places = sprite.sprite(plots.heat(np.concatenate([maps for _, maps in pictured])), SMALL_SIDE)
    run.bytes("explain/maps.webp", file)
    table = pd.concat([pd.concat([each for each, _ in pictured], ignore_index=True), places], axis=1)
    run.table("explain/maps.csv", table)
    return table


def _picture(run: Run, trained: ModelAndImages, chosen: Chosen, method: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Logs the contact sheet of `chosen`. Returns a row per map (image, class, whether it is blank), and the maps."""
    title = f"{trained.params.model}, {method}: {len(chosen.names)} {chosen.kind} test images"
    captions = _captions(trained, chosen)
    model = trained.classifier.model
    panels = [("for the predicted class", _maps(trained, model, chosen.inputs, chosen.predicted, method))]
    if chosen.kind == "misclassified":
        panels.append(("for the true class", _maps(trained, model, chosen.inputs, chosen.true, method)))
    if attend := _attention(model):
        attention = attend(model, chosen.inputs)
        if attention.ndim == 3:
            panels.append(("attention rollout", attention))
        else:
            figure = plots.attention_matrices(chosen.images, attention, captions, title)
            run.figure(f"explain/attention_{chosen.kind}.png", figure)
    run.figure(f"explain/{chosen.kind}.png", plots.explanations(chosen.images, panels, captions, title=title))
    table = pd.concat(
        pd.DataFrame({"image": chosen.names, "kind": chosen.kind, "map": heading, "blank": attribution.is_blank(maps)})
        for heading, maps in panels
    )
    return table, np.concatenate([maps for _, maps in panels])


def _attention(model: nn.Module) -> Callable[..., np.ndarray] | None:
    """What shows the attention of `model`; None where it has none to show."""
    return next((show for kind, show in ATTENTION.items() if isinstance(model, kind)), None)


def _maps(trained: ModelAndImages, model: nn.Module, inputs: Tensor, targets: np.ndarray, method: str) -> np.ndarray:
    where = models.cam_target(trained.params.model, model)
    return attribution.class_maps(model, where, inputs, torch.from_numpy(targets), method)


def _grid(trained: ModelAndImages) -> tuple[int, int]:
    """Height and width (cells) of a map before it is laid over the image."""
    model, size = trained.classifier.model, trained.params.image_size
    image = torch.zeros(1, 3, size, size, device=_device(trained))
    return attribution.grid_size(model, models.cam_target(trained.params.model, model), image)


def _faithfulness(
    run: Run,
    name: str,
    trained: ModelAndImages,
    chosen: list[Chosen],
    params: ExplainParams,
    grid: tuple[int, int],
) -> tuple[str, dict[str, float]]:
    """Logs the deletion curves. Returns what they say, in words and as metrics."""
    curves, scores = _measure(trained, chosen, params, grid)
    means = {source: float(each.mean()) for source, each in scores.items()}
    run.table("explain/faithfulness.csv", curves)
    run.figure("explain/faithfulness.png", plots.faithfulness(curves, means, name))
    method, *controls = means
    numbers = {"explain/faithfulness": means[method]}
    numbers |= {f"explain/faithfulness_{control.replace(' ', '_')}": means[control] for control in controls}
    give_or_take = ""
    if (error := _standard_error(scores[method])) is not None:
        numbers["explain/standard_error"] = error
        give_or_take = f" ± {error:.3f}"
    beside = ", ".join(f"{control} {means[control]:.3f}" for control in controls)
    return f"{method} faithfulness {means[method]:.3f}{give_or_take} ({beside})", numbers


def _measure(
    trained: ModelAndImages, chosen: list[Chosen], params: ExplainParams, grid: tuple[int, int]
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Deletion curves and every image's score of the maps for the predicted class, beside their two controls."""
    model = trained.classifier.model
    inputs = torch.cat([each.inputs for each in chosen])
    predicted = np.concatenate([each.predicted for each in chosen])
    unlearned = faithfulness.randomised_copy(model, params.seed)
    maps = {
        params.method: _maps(trained, model, inputs, predicted, params.method),
        "random map": faithfulness.random_maps((len(inputs), *inputs.shape[2:]), params.seed, grid),
        "random weights": _maps(trained, unlearned, inputs, predicted, params.method),
    }
    if _attention(model) is attribution.attention_rollout:
        maps["attention rollout"] = attribution.attention_rollout(model, inputs)
    targets = torch.from_numpy(predicted)
    measured = {
        source: faithfulness.measure(model, inputs, targets, each, seed=params.seed) for source, each in maps.items()
    }
    curves = pd.concat(_curves(source, result) for source, result in measured.items())
    return curves, {source: result.scores for source, result in measured.items()}


def _standard_error(scores: np.ndarray) -> float | None:
    """That of the mean over the images; None of one image alone."""
    return float(scores.std(ddof=1) / np.sqrt(len(scores))) if len(scores) > 1 else None


def _curves(source: str, result: Faithfulness) -> pd.DataFrame:
    orders = {
        "most relevant first": result.most_relevant_first,
        "least relevant first": result.least_relevant_first,
    }
    return pd.concat(
        pd.DataFrame({"source": source, "order": order, "fraction": result.fractions, "confidence": each.mean(axis=0)})
        for order, each in orders.items()
    )


def _captions(trained: ModelAndImages, chosen: Chosen) -> list[str]:
    classes = trained.splits.classes
    return [
        f"true {classes[true]} {p[true]:.2f}\npredicted {classes[predicted]} {p[predicted]:.2f}"
        for true, predicted, p in zip(chosen.true, chosen.predicted, chosen.probabilities, strict=True)
    ]


def _device(trained: ModelAndImages) -> torch.device:
    return next(trained.classifier.model.parameters()).device
