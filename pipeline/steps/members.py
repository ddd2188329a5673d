"""Reports what an ensemble gains over one of its networks on the test images, and what it costs."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from torch import Tensor, nn

from pipeline.history.trained_model import ModelAndImages
from pipeline.models.ensemble import Ensemble
from pipeline.results import dependence, metrics, paired_tests
from pipeline.results.paired_tests import Difference
from pipeline.tracking.run import Run
from pipeline.training import costs

TIMED_IMAGES = 64
LEAST_PROBABILITY = np.finfo(np.float64).eps  # a probability of 0 would make the loss infinite


class Network(NamedTuple):
    """The numbers of one network on the test images, a row of members.csv."""

    network: str  # the id of its training; `ensemble` for all together
    accuracy: float
    loss: float
    ece: float
    parameters: int
    seconds_per_image: float


def report(
    run: Run, trained: ModelAndImages, probabilities: np.ndarray, groups: np.ndarray | None
) -> tuple[dict[str, float], str]:
    """Logs members.csv: accuracy, loss, calibration error and cost of an ensemble and of each member alone.

    probabilities: (N, C), of the ensemble, calibrated. groups: (N,) int64, or None. Returns means and costs as metrics,
    and a line about them; both empty for a single network.
    """
    model, labels = trained.classifier.model, trained.splits.test.labels
    if not isinstance(model, Ensemble):
        return {}, ""
    run_ids = [each.run_id for each in trained.classifier.description.members]
    temperatures = [each.temperature for each in trained.classifier.description.members]
    networks = [model, *model.members]
    alone = [
        softmax(trained.test_logits(member).double().numpy() / temperature, axis=1)
        for member, temperature in zip(model.members, temperatures, strict=True)
    ]
    seconds = costs.seconds_per_image(networks, _inputs(trained), trained.precision)
    of_each = zip(["ensemble", *run_ids], networks, [probabilities, *alone], seconds, strict=True)
    whole, *rows = [_network(name, network, labels, found, cost) for name, network, found, cost in of_each]
    run.table("members.csv", pd.DataFrame([whole, *rows]))
    share = np.mean([found.argmax(1) == labels for found in alone], axis=0)
    gain = _gain(share, probabilities.argmax(1) == labels, groups)
    mean = pd.DataFrame(rows).drop(columns="network").mean()
    numbers = {f"members/{name}": float(value) for name, value in mean.items()}
    numbers |= {"ensemble/gain": gain.value, "ensemble/gain_low": gain.low, "ensemble/gain_high": gain.high}
    numbers |= {f"ensemble/{name}": float(getattr(whole, name)) for name in ("parameters", "seconds_per_image")}
    numbers = {name: value for name, value in numbers.items() if not math.isnan(value)}
    over = "images" if groups is None else "groups"
    return numbers, f"one of the {len(rows)} networks alone: {_words(numbers, over)}"


def _words(numbers: Mapping[str, float], over: str) -> str:
    interval = ""
    if "ensemble/gain_low" in numbers:
        low, high = (100 * numbers[f"ensemble/gain_{end}"] for end in ("low", "high"))
        interval = f" (95 % interval over {over} {low:+.2f} to {high:+.2f})"
    return (
        f"{numbers['members/accuracy']:.2%} on average, loss {numbers['members/loss']:.4f}, "
        f"ECE {numbers['members/ece']:.4f}; together {100 * numbers['ensemble/gain']:+.2f} points{interval}, "
        f"{1e3 * numbers['ensemble/seconds_per_image']:.3g} ms per image against "
        f"{1e3 * numbers['members/seconds_per_image']:.3g} ms"
    )


def _gain(alone: np.ndarray, together: np.ndarray, groups: np.ndarray | None) -> Difference:
    """The accuracy of the ensemble minus the mean of its members. alone: (N,), the share of members that are right."""
    if groups is None:
        return paired_tests.difference(alone, together)
    return dependence.mean(together - alone, groups)


def _inputs(trained: ModelAndImages) -> Tensor:
    """Some test images, as the model takes them."""
    test, where = trained.splits.test, next(trained.classifier.model.parameters()).device
    images = torch.from_numpy(test.take(np.arange(min(TIMED_IMAGES, len(test)))))
    return trained.classifier.normalise(images.to(where))


def _network(name: str, model: nn.Module, labels: np.ndarray, probabilities: np.ndarray, seconds: float) -> Network:
    of_true = probabilities[np.arange(len(labels)), labels]
    return Network(
        name,
        float((probabilities.argmax(1) == labels).mean()),
        float(-np.log(np.maximum(of_true, LEAST_PROBABILITY)).mean()),
        metrics.calibration(labels, probabilities)[0],
        sum(parameter.numel() for parameter in model.parameters()),
        seconds,
    )
