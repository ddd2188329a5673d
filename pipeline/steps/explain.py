"""Explains a trained model, as a tracked step: where it looks when it is wrong and when it is right."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline import models
from pipeline.data.splits import evenly_spaced
from pipeline.explain import attention, attribution, background, judgement
from pipeline.explain.judgement import Judgement
from pipeline.history import trained_model
from pipeline.history.trained_model import ModelAndImages
from pipeline.models.ultimus import Ultimus
from pipeline.params import ExplainParams
from pipeline.results import plots, sprite
from pipeline.steps.step import Result, about
from pipeline.tracking.run import Run

SMALL_SIDE = 160  # px, side of the images and maps in the report


@dataclass(frozen=True)
class Chosen:
    """n test images to explain: as stored, as the model takes them, and the model's predictions."""

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
    methods = _methods(trained, params.method)
    with about(trained, "explain", methods[0], params, "test", parent) as step:
        run = step.run
        probabilities = _probabilities(trained)
        chosen = [each for each in _choose(trained, probabilities, params.num_images) if each.names]
        _keep_images(run, trained, chosen)
        maps = _keep_maps(run, [_log_sheet(run, trained, each, methods) for each in chosen])
        blank = maps["blank"]
        numbers = {"explain/blank_maps": float(blank.sum())}
        border_line, border_numbers = _border(run, trained, probabilities, methods[0])
        numbers |= border_numbers
        if _grid(trained) == (1, 1):
            size = trained.params.image_size
            finding = f"a map by {methods[0]} has one cell for a whole image of {size} px here, so it shows no place"
        else:
            finding, measured = _judge(run, step.name, trained, chosen, methods, params.seed)
            numbers |= measured
        run.metrics(numbers, model_of=trained.model_of)
        of = f" of {run.link('this training', trained.run_id)}{trained.checkpoint_note}"
        return step.conclude(f"{finding}; {blank.sum()} of {len(blank)} maps blank{border_line}", numbers, of=of)


def _methods(trained: ModelAndImages, asked: str) -> list[str]:
    """The requested method, and the methods to show beside it."""
    model, image = trained.classifier.model, _blank_image(trained)
    where = models.cam_target(trained.params.model, model)
    method = attribution.choose(asked, model, where, image)
    return [method, *attribution.compared(method, model, where, image)]


def _probabilities(trained: ModelAndImages) -> np.ndarray:
    """The probability (N, C) of each class for each test image."""
    return (trained.test_logits() / trained.classifier.temperature).softmax(1).numpy()


def _choose(trained: ModelAndImages, probabilities: np.ndarray, num_images: int) -> list[Chosen]:
    """The most confident errors, and the same number of correct images, spread evenly over the test split."""
    labels, predicted = trained.splits.test.labels, probabilities.argmax(1)
    wrong, right = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    surest_first = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    spread = right[evenly_spaced(len(right), num_images)]
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
    """Logs small versions of the images, and the model's predictions."""
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


def _keep_maps(run: Run, mapped: list[tuple[pd.DataFrame, np.ndarray]]) -> pd.DataFrame:
    """Logs small versions of all maps and their table. Returns the table."""
    file, places = sprite.sprite(plots.heat(np.concatenate([maps for _, maps in mapped])), SMALL_SIDE)
    run.bytes("explain/maps.webp", file)
    table = pd.concat([pd.concat([each for each, _ in mapped], ignore_index=True), places], axis=1)
    run.table("explain/maps.csv", table)
    return table


def _log_sheet(
    run: Run, trained: ModelAndImages, chosen: Chosen, methods: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Logs the contact sheet of `chosen`. Returns a row per map (image, class, whether it is blank), and the maps."""
    method, *others = methods
    title = f"{trained.params.model}, {method}: {len(chosen.names)} {chosen.kind} test images"
    captions = _captions(trained, chosen)
    model = trained.classifier.model
    panels = [("for the predicted class", _maps(trained, chosen.inputs, chosen.predicted, method))]
    if chosen.kind == "misclassified":
        panels.append(("for the true class", _maps(trained, chosen.inputs, chosen.true, method)))
    panels += [(other.replace("_", " "), _maps(trained, chosen.inputs, chosen.predicted, other)) for other in others]
    if isinstance(model, Ultimus):
        figure = plots.attention_matrices(
            chosen.images, attention.attention_matrices(model, chosen.inputs), captions, title
        )
        run.figure(f"explain/attention_{chosen.kind}.png", figure)
    run.figure(f"explain/{chosen.kind}.png", plots.explanations(chosen.images, panels, captions, title=title))
    table = pd.concat(
        pd.DataFrame({"image": chosen.names, "kind": chosen.kind, "map": heading, "blank": attribution.is_blank(maps)})
        for heading, maps in panels
    )
    shares = [background.border_shares(maps) for _, maps in panels]
    return table.assign(border_share=np.concatenate(shares)), np.concatenate([maps for _, maps in panels])


def _maps(trained: ModelAndImages, inputs: Tensor, targets: np.ndarray, method: str) -> np.ndarray:
    model = trained.classifier.model
    where = models.cam_target(trained.params.model, model)
    return attribution.class_maps(model, where, inputs, torch.from_numpy(targets), method)


def _grid(trained: ModelAndImages) -> tuple[int, int]:
    """Height and width (cells) of a map before it is scaled to the image."""
    model = trained.classifier.model
    return attribution.grid_size(model, models.cam_target(trained.params.model, model), _blank_image(trained))


def _blank_image(trained: ModelAndImages) -> Tensor:
    size = trained.params.image_size
    return torch.zeros(1, 3, size, size, device=_device(trained))


def _border(run: Run, trained: ModelAndImages, probabilities: np.ndarray, method: str) -> tuple[str, dict[str, float]]:
    """Logs how much of the maps of each class lies on the border. Returns words on outstanding classes, and the mean.

    Both are empty if the maps are too coarse, or no class has enough images.
    """
    classes = trained.splits.classes
    positions = background.choose(probabilities.argmax(1), len(classes))
    if min(_grid(trained)) < background.FEWEST_CELLS or not len(positions):
        return "", {}
    mapped = _take(trained, probabilities, "mapped", positions)
    shares = background.border_shares(_maps(trained, mapped.inputs, mapped.predicted, method))
    table = background.by_class(shares, mapped.predicted, classes)
    if table.empty:
        return "", {}
    run.table("explain/border.csv", table)
    return background.finding(table), {"explain/border_share": float(table["border_share"].mean())}


def _judge(
    run: Run, name: str, trained: ModelAndImages, chosen: list[Chosen], methods: list[str], seed: int
) -> tuple[str, dict[str, float]]:
    """Logs whether the maps for the predicted class mean anything. Returns the finding in words and as metrics."""
    inputs = torch.cat([each.inputs for each in chosen])
    predicted = torch.from_numpy(np.concatenate([each.predicted for each in chosen]))
    where = partial(models.cam_target, trained.params.model)
    judged = judgement.judge(where, trained.classifier.model, inputs, predicted, methods, seed)
    scores = judged.scores.set_index("source")
    run.table("explain/faithfulness.csv", judged.curves)
    run.table("explain/scores.csv", judged.scores)
    run.table("explain/randomisation.csv", judged.randomisation)
    means = {str(source): float(mean) for source, mean in scores["faithfulness"].items()}
    run.figure("explain/faithfulness.png", plots.faithfulness(judged.curves, means, name))
    run.figure("explain/randomisation.png", plots.randomisation(judged.randomisation, name))
    return _finding(judged), _numbers(judged)


def _numbers(judged: Judgement) -> dict[str, float]:
    """The metrics: plain names for the requested method; for the others, names with their source."""
    numbers = {"explain/agreement": judged.agreement, "explain/agreement_error": judged.agreement_error}
    for place, row in judged.scores.iterrows():
        suffix = f"_{row['source'].replace(' ', '_')}" if place else ""
        for measure in ("faithfulness", "standard_error", "insertion", "insertion_error"):
            numbers[f"explain/{measure}{suffix}"] = row[measure]
    numbers["explain/randomised_similarity"] = judged.randomisation["similarity"].iloc[-1]
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def _finding(judged: Judgement) -> str:
    first, *controls = judged.scores.to_dict("records")
    beside = (f"{each['source']} {_with_error(each['faithfulness'], each['standard_error'])}" for each in controls)
    return (
        f"{first['source']} faithfulness {_with_error(first['faithfulness'], first['standard_error'])} "
        f"({', '.join(beside)}); insertion over deletion {_with_error(first['insertion'], first['insertion_error'])}, "
        f"both measures prefer the same one of two maps in {judged.agreement:.0%} of cases"
    )


def _with_error(mean: float, error: float) -> str:
    return f"{mean:.3f} ± {error:.3f}" if np.isfinite(error) else f"{mean:.3f}"


def _captions(trained: ModelAndImages, chosen: Chosen) -> list[str]:
    classes = trained.splits.classes
    return [
        f"true {classes[true]} {p[true]:.2f}\npredicted {classes[predicted]} {p[predicted]:.2f}"
        for true, predicted, p in zip(chosen.true, chosen.predicted, chosen.probabilities, strict=True)
    ]


def _device(trained: ModelAndImages) -> torch.device:
    return next(trained.classifier.model.parameters()).device
