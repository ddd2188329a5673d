"""Measures a trained network on spoiled test images, as a tracked step: noise, blur, JPEG, light and more."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.data import Split
from pipeline.data.batches import batch_size, derive_seed
from pipeline.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from pipeline.history import trained_model
from pipeline.history.trained_model import ModelAndImages
from pipeline.params import RobustnessParams
from pipeline.progress import Meter, meter
from pipeline.results import dependence, plots, robustness
from pipeline.results.dependence import Interval
from pipeline.results.robustness import Answers, Summary
from pipeline.steps.step import Result, Step, about
from pipeline.tracking.run import Run
from pipeline.training.update import predict

LARGEST_BATCH = 256
NAMES = list(CORRUPTIONS)
STRENGTHS = np.array([each.strengths for each in CORRUPTIONS.values()])
CASES = [("none", 0), *product(NAMES, range(1, SEVERITIES + 1))]


def run(params: RobustnessParams) -> Result:
    """Measures the training that `params` name on spoiled test images, and the reference on the same ones."""
    networks = [trained_model.find(params)]
    if params.reference:
        networks.append(
            trained_model.find(params.model_copy(update={"run_id": params.reference, "checkpoint": "best"}))
        )
        _check_same_images(*networks)
    trained = networks[0]
    test = _test_images(trained, params.limit_test)
    groups = dependence.numbers(trained.splits.groups_of(test))
    with about(trained, "robustness", "robustness", params, "test", None) as step:
        with meter("robustness", len(CASES) * len(networks)) as progress:
            found = [_answers(each, params, step.run, progress) for each in networks]
        summary = robustness.summarise(found[0], found[1] if len(found) > 1 else None, groups, params.seed)
        tables = [robustness.table(each, NAMES, STRENGTHS, groups) for each in found]
        _log_tables(step.run, tables, summary)
        _log_sheet(step.run, test, params.seed)
        if len(networks) > 1:
            step.run.tags({"reference.run_id": networks[1].run_id})
        return _conclude(step, trained, tables, summary, len(test))


def _check_same_images(trained: ModelAndImages, other: ModelAndImages) -> None:
    one, another = ((list(each.splits.test.names), list(each.splits.classes)) for each in (trained, other))
    if one != another:
        raise ValueError(
            f"reference={other.run_id}: its test images or classes differ from those of run {trained.run_id}"
        )


def _test_images(network: ModelAndImages, most: int) -> Split:
    """At most `most` test images, spread evenly over all of them; all if `most` is 0."""
    test = network.splits.test
    return test.spread(most) if most else test


def _answers(network: ModelAndImages, params: RobustnessParams, run: Run, progress: Meter) -> Answers:
    test, wrong = _test_images(network, params.limit_test), []
    for name, severity in CASES:
        batches = _spoiled(network, test, name, severity, params.seed)
        logits, labels = predict(network.classifier.model, batches, network.precision)
        wrong.append((logits.argmax(1) != labels).numpy())
        progress.advance(lambda now=f"{name} {severity}": now)  # type: ignore[misc]
        run.progress(int(progress.done), int(progress.total))
    return Answers(wrong[0], np.stack(wrong[1:]).reshape(len(NAMES), SEVERITIES, -1))


def _spoiled(
    network: ModelAndImages, test: Split, name: str, severity: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `test` as the network takes them, spoiled, with their labels. Severity 0 spoils nothing."""
    where = next(network.classifier.model.parameters()).device
    for positions in np.split(np.arange(len(test)), range(LARGEST_BATCH, len(test), LARGEST_BATCH)):
        images = _corrupted(test, positions, name, severity, seed)
        for few in torch.arange(len(images)).split(batch_size(test.image_size, LARGEST_BATCH)):
            yield network.classifier.normalise(images[few].to(where)), torch.from_numpy(test.labels[positions][few])


def _corrupted(test: Split, positions: np.ndarray, name: str, severity: int, seed: int) -> Tensor:
    """The images at `positions`, (B, 3, H, W) uint8. Their noise depends only on the first position and the seed."""
    images = torch.from_numpy(test.take(positions))
    if not severity:
        return images
    generator = torch.Generator().manual_seed(derive_seed(seed, name, severity, positions[0]))
    return corrupt(images, name, severity, generator)


def _log_tables(run: Run, tables: Sequence[pd.DataFrame], summary: Summary) -> None:
    """Logs accuracies by severity as a table and a figure, and the means of each corruption as a table."""
    table = tables[0]
    if len(tables) > 1:
        table = table.assign(reference_accuracy=tables[1]["accuracy"])
    run.table("robustness.csv", table)
    rows = [{"corruption": name, **_row("", each)} for name, each in zip(NAMES, summary.accuracies, strict=True)]
    means = pd.DataFrame(rows)
    if summary.corruption_errors:
        means = means.join(pd.DataFrame([_row("error_", each) for each in summary.corruption_errors]))
    run.table("corruptions.csv", means.sort_values("accuracy", kind="stable"))
    title = f"Accuracy on spoiled images: {_percent(summary.accuracy)}"
    run.figure("robustness.png", plots.robustness(table, tables[1] if len(tables) > 1 else None, title))


def _log_sheet(run: Run, test: Split, seed: int) -> None:
    """Logs one image with all corruptions at all severities."""
    position = np.array([len(test) // 2])
    rows = [[_corrupted(test, position, name, level, seed)[0] for level in range(SEVERITIES + 1)] for name in NAMES]
    images = torch.stack([torch.stack(row) for row in rows]).numpy()
    run.figure("corruptions.png", plots.corruptions(images, NAMES, "One test image, clean and at five severities"))


def _conclude(
    step: Step, trained: ModelAndImages, tables: Sequence[pd.DataFrame], summary: Summary, num_images: int
) -> Result:
    clean, worst = tables[0].iloc[0], int(np.argmin([each.value for each in summary.accuracies]))
    numbers = {"robustness/clean_accuracy": clean.accuracy, "robustness/clean_accuracy_low": clean.low}
    numbers |= {"robustness/clean_accuracy_high": clean.high, "robustness/images": float(num_images)}
    numbers |= summary.accuracy.metrics("robustness/accuracy") | summary.lost.metrics("robustness/lost")
    for name, each in zip(NAMES, summary.accuracies, strict=True):
        numbers |= each.metrics(f"robustness/{name}_accuracy")
    words = (
        f"test accuracy {clean.accuracy:.2%} on {num_images:,} clean images, {_percent(summary.accuracy)} on spoiled "
        f"ones; worst: {NAMES[worst]}, {_percent(summary.accuracies[worst])}"
    )
    if summary.mean_corruption_error is not None:
        value, low, high = found = summary.mean_corruption_error
        numbers |= found.metrics("robustness/mean_corruption_error")
        words += f"; mean corruption error {value:.1%} of the reference's ({low:.1%} to {high:.1%})"
    step.run.metrics(numbers, model_of=trained.model_of)
    of = f" of {step.run.link('this training', trained.run_id)}{trained.checkpoint_note}"
    return step.conclude(words, numbers, of=of)


def _percent(found: Interval) -> str:
    return f"{found.value:.2%} ({found.low:.2%} to {found.high:.2%})"


def _row(prefix: str, found: Interval) -> dict[str, float]:
    first = "corruption_error" if prefix else "accuracy"
    return {first: found.value, f"{prefix}low": found.low, f"{prefix}high": found.high}
