"""The checks of `benchmarks.gpu` that run inside one process: waits, speed, number formats, maps beside the CPU's."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.contest import PROJECT
from benchmarks.laps import now
from benchmarks.synthetic import splits
from pipeline import models
from pipeline.explain import attribution, faithfulness
from pipeline.params import TrainParams
from pipeline.settings import resolve
from pipeline.training import device
from pipeline.training.events import StepEnd
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training

WITHOUT_WAITS = (3, 30)  # updates; the first ones compile kernels, and each 32nd reads the losses
# The largest relative difference of a loss from the CPU's in fp32, and the largest difference of a map in [0, 1].
LOSS_TOLERANCES = {"fp32": 1e-3, "bf16": 0.03, "fp16": 0.01}
MAP_TOLERANCE = 1e-3
# Images/s at 32 px on a card like an H100: the 77 TFLOP/s and 2.59 s that airbench publishes for an A100, doubled.
GOALS = {"resnet18": 45_000, "resnet9": 65_000, "fast": 300_000}


class Row(NamedTuple):
    """One line of the table. is_met: whether the value is as wanted; None if nothing is wanted."""

    what: str
    value: str
    wanted: str = ""
    is_met: bool | None = None


@dataclass(frozen=True)
class Scale:
    """How much a check does."""

    batches: tuple[int, ...] = (512, 2000, 128)
    updates: int = 20  # per measurement of speed
    modes: tuple[str, ...] = ("eager", "graphed", "compiled")
    sizes: dict[str, Any] = field(default_factory=dict)  # parameters that make networks smaller
    until: float = 240.0  # seconds; what speed has not measured by then, it leaves out


def recipes(scale: Scale) -> dict[str, TrainParams]:
    """The recipes of CIFAR-10, by the name of their network."""
    found = {}
    for name in ("resnet18", "resnet9", "fast", "vit"):
        file = str(PROJECT / "experiments" / f"cifar10_{name}.yaml")
        params = resolve("train", {"experiment": file}).to(TrainParams, max_lr=0.01, compile="off")
        found[name] = params.model_copy(update=scale.sizes)
    return found


def waits(where: torch.device, scale: Scale) -> Iterator[Row]:
    """Says of each recipe whether its updates wait for the device. torch raises an error at each wait."""
    first, last = WITHOUT_WAITS
    for name, params in recipes(scale).items():
        training = _training(params, where, (last + 2) * params.batch_size)
        error = ""
        try:
            for event in training.events():
                if event.step == first - 1:
                    _forbid_waits(where, True)
                if event.step == last - 1:
                    break
        except RuntimeError as found:
            error = str(found).strip().partition("\n")[0]
        finally:
            _forbid_waits(where, False)
        yield Row(f"{name}: waits in updates {first} to {last}", error or "none", "none", not error)


def speed(where: torch.device, scale: Scale) -> Iterator[Row]:
    """Training in images/s for each network, size of batch and mode, with nothing tracked."""
    started = time.perf_counter()
    best: dict[str, float] = {}
    for mode in scale.modes:
        for size in scale.batches:
            for name, params in recipes(scale).items():
                if time.perf_counter() - started > scale.until:
                    yield Row(f"{name}, {size}, {mode}: images/s", "not measured: no time was left")
                    continue
                try:
                    rate = _rate(params.model_copy(update={"batch_size": size}), where, mode, scale.updates)
                except Exception as error:
                    reason = str(error).strip().partition("\n")[0] or type(error).__name__
                    yield Row(f"{name}, {size}, {mode}: images/s", f"failed: {reason}", "", False)
                    continue
                best[name] = max(rate, best.get(name, 0))
                yield Row(f"{name}, {size}, {mode}: images/s", f"{rate:,.0f}")
    for name, goal in GOALS.items():
        if name in best:
            yield Row(f"{name}: best images/s", f"{best[name]:,.0f}", f">= {goal:,}", best[name] >= goal)


def formats(where: torch.device, scale: Scale) -> Iterator[Row]:
    """Compares the losses of the first ten updates in each number format with the CPU's in fp32."""
    # Without augmentation, because each device draws other random numbers.
    plain = {"crop_padding": 0, "flip": "off", "batch_size": 64, "width": 16, "max_lr": 1e-4}
    params = TrainParams(**{**plain, **scale.sizes, "model": "resnet9"})

    def losses(there: torch.device, precision: str) -> np.ndarray:
        training = _training(params, there, 10 * params.batch_size, precision)
        return np.array([float(event.loss) for event in training.events() if isinstance(event, StepEnd)])

    expected = losses(torch.device("cpu"), "fp32")
    for precision, most in LOSS_TOLERANCES.items():
        found = float(np.abs(losses(where, precision) / expected - 1).max())
        yield Row(f"losses in {precision} beside the CPU's in fp32", f"{found:.1e}", f"<= {most:g}", found <= most)


def maps(where: torch.device, scale: Scale) -> Iterator[Row]:
    """Maps and their faithfulness beside the CPU's."""
    torch.manual_seed(0)
    width = scale.sizes.get("width", 64)
    model = models.build("resnet18", num_classes=10, image_size=32, width=width).eval()
    images, targets = torch.randn(16, 3, 32, 32), torch.arange(16) % 10

    def explained(there: torch.device) -> tuple[np.ndarray, np.ndarray]:
        network, inputs = model.to(there), images.to(there)
        target = models.cam_target("resnet18", network)
        found = attribution.class_maps(network, target, inputs, targets.to(there), "gradcam")
        return found, faithfulness.measure(network, inputs, targets.to(there), found, seed=0).scores

    ours, theirs = explained(torch.device("cpu")), explained(where)
    for what, one, other in zip(("maps", "faithfulness by ROAD"), ours, theirs, strict=True):
        gap = float(np.abs(one - other).max())
        yield Row(f"{what} beside the CPU's", f"{gap:.1e}", f"<= {MAP_TOLERANCE:g}", gap <= MAP_TOLERANCE)


IN_PROCESS: dict[str, Callable[[torch.device, Scale], Iterator[Row]]] = {
    "waits": waits,
    "formats": formats,
    "maps": maps,
    "speed": speed,
}


def _training(params: TrainParams, where: torch.device, num_images: int, precision: str = "auto") -> Training:
    number_format = device.choose_precision(precision, where)
    return Recipe(params, splits(num_images), where, number_format).one_cycle(float(params.max_lr))


def _rate(params: TrainParams, where: torch.device, mode: str, updates: int) -> float:
    training = _training(params, where, (updates + 3) * params.batch_size)
    if mode == "compiled":
        training = replace(training, is_compiled=True)
    if mode == "graphed":
        training = replace(training, part=lambda model: _graphed(model, training, params))
    started = 0.0
    for event in training.events():
        if event.step == 2:  # the third update: kernels are compiled
            started = now()
        if event.step == updates + 2:
            break
    return updates * params.batch_size / (now() - started)


def _graphed(model: nn.Module, training: Training, params: TrainParams) -> nn.Module:
    """`model` with a forward and a backward pass that are one launch each. It shares the weights of `model`."""
    where = training.batches.device
    images = torch.randn(params.batch_size, 3, 32, 32, device=where).to(memory_format=torch.channels_last)
    kind = device.HALF.get(training.precision)
    with torch.autocast(where.type, dtype=kind, enabled=kind is not None, cache_enabled=False):
        graphed = torch.cuda.make_graphed_callables(model, (images,))
    assert isinstance(graphed, nn.Module)
    return graphed


def _forbid_waits(where: torch.device, forbidden: bool) -> None:
    if where.type == "cuda":
        torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
