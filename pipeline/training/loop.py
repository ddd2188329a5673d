"""The training loop, as a generator of events, and prediction: no printing, no files, no tracking."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from pipeline.data.batches import TrainBatches
from pipeline.training import attention
from pipeline.training.compiling import compiled
from pipeline.training.device import autocast
from pipeline.training.events import EpochEnd, Failure, StepEnd
from pipeline.training.freezing import Frozen
from pipeline.training.schedules import rate

CHECK_EVERY_STEPS = 32  # how late a non-finite loss may be noticed; asking more often would hold up the device


class Diverged(Failure):
    """The loss is no number any more."""


def fit(
    model: nn.Module,
    batches: TrainBatches,
    optimizer: Optimizer,
    schedule: LRScheduler,
    *,
    epochs: int,
    precision: str,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    valid: Iterable[tuple[Tensor, Tensor]] | None = None,
    ema: AveragedModel | None = None,
    frozen: Frozen | None = None,
    is_compiled: bool = False,
    done_epochs: int = 0,
    done_steps: Sequence[StepEnd] = (),
) -> Iterator[StepEnd | EpochEnd]:
    """Trains `model` in place, yielding a StepEnd per update and an EpochEnd per epoch; leave it whenever you like.

    At each event all that was given holds the state after that many updates: kept then, it can go on from there, after
    `done_epochs` epochs and the updates `done_steps` of the next one.
    `valid` yields normalised images and labels; with `ema`, it is the averaged model that is validated. With
    `is_compiled`, updates run as torch compiles them, but for a last batch that is smaller than the others.
    Raises Diverged, naming update and rate, within 32 updates of the first non-finite loss.
    """
    total_steps = epochs * len(batches)
    whole_batches = compiled(model) if is_compiled else model
    seen = list(done_steps)
    step = done_epochs * len(batches) + len(seen)
    for epoch in range(done_epochs + 1, epochs + 1):
        model.train()
        if frozen is not None:
            frozen.begin(epoch)
        started = time.perf_counter() - (seen[-1].seconds if seen else 0.0)
        for images, targets in batches.epoch(epoch, len(seen)):
            lr = rate(optimizer)
            forward = whole_batches if len(images) == batches.batch_size else model
            loss, num_correct = train_step(
                forward, images, targets, optimizer, precision, label_smoothing, class_weights
            )
            if ema is not None:
                ema.update_parameters(model)
            step += 1
            if step < total_steps:
                schedule.step()
            seconds = time.perf_counter() - started
            seen.append(StepEnd(step - 1, step / len(batches), lr, loss, num_correct, len(images), seconds))
            yield seen[-1]
            if step % CHECK_EVERY_STEPS == 0:
                check_finite(seen[-CHECK_EVERY_STEPS:])
        check_finite(seen[-CHECK_EVERY_STEPS:])
        num_images = sum(event.num_images for event in seen)
        losses = _numbers(event.loss for event in seen)
        train_loss = sum(loss * event.num_images for loss, event in zip(losses, seen, strict=True)) / num_images
        train_accuracy = sum(_numbers(event.num_correct for event in seen)) / num_images
        seconds = time.perf_counter() - started
        valid_loss = valid_accuracy = None
        if valid is not None:
            logits, labels = predict(model if ema is None else ema.module, valid, precision)
            valid_loss = F.cross_entropy(logits, labels).item()
            valid_accuracy = (logits.argmax(1) == labels).float().mean().item()
        lr, seen = seen[-1].lr, []
        yield EpochEnd(
            epoch,
            step,
            lr,
            train_loss,
            train_accuracy,
            valid_loss,
            valid_accuracy,
            seconds,
            num_images / seconds,
        )


def train_step(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    optimizer: Optimizer,
    precision: str,
    label_smoothing: float,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One update of the network that `forward` is. Returns mean loss and number correct, both still on the device.

    `targets` are labels (B,) or, from mixup and cutmix, probabilities (B, C), whose largest counts as the label.
    `class_weights` (C,) weigh each image in the loss, by its label.
    """
    tokens = getattr(forward, "seq_length", None)  # of torchvision's vision transformers, compiled or not
    with autocast(images.device, precision), attention.kernel(tokens, images.device, precision):
        logits = forward(images)
    loss = _loss(logits.float(), targets, label_smoothing, class_weights)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return loss.detach(), (logits.detach().argmax(1) == labels).sum()


def _loss(logits: Tensor, targets: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    if class_weights is None or not label_smoothing:
        return F.cross_entropy(logits, targets, class_weights, label_smoothing=label_smoothing)
    # Torch would also weigh the share that smoothing gives to each class: of 100 to 1 images, what is surely of the
    # common class would have to be called the rare one.
    evenly = -logits.log_softmax(1).mean(1)
    if targets.ndim == 1:
        weights = class_weights[targets]
        share = (weights * evenly).sum() / weights.sum()
    else:
        share = (targets @ class_weights * evenly).mean()
    return (1 - label_smoothing) * F.cross_entropy(logits, targets, class_weights) + label_smoothing * share


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float32 and labels (N,) of all batches, on the CPU; every module's mode stays as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        with autocast(images.device, precision):
            logits.append(model(images).float())
        labels.append(targets)
    for module, training in modes:
        module.training = training
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def check_finite(events: Sequence[StepEnd]) -> None:
    """Raises Diverged for the first of `events` whose loss is no number."""
    for event, loss in zip(events, _numbers(event.loss for event in events), strict=True):
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} at step {event.step} with lr {event.lr:.3g}")


def _numbers(scalars: Iterable[Any]) -> list[float]:
    # One wait for the device, however many scalars.
    tensors = list(scalars)
    return torch.stack(tensors).tolist() if tensors else []
