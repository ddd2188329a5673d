"""A training: a network with everything that trains it. It runs as a stream of events, and can stop at any of them."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pipeline.data.batches import TrainBatches
from pipeline.models.stages import Frozen, freeze_norms
from pipeline.training.compilation import compiled
from pipeline.training.ema import MovingAverage
from pipeline.training.event_log import EventLog
from pipeline.training.events import EpochEnd, Failure, StepEnd
from pipeline.training.ranks import ALONE, Ranks
from pipeline.training.schedules import rate
from pipeline.training.update import predict, train_step
from pipeline.training.validation import counts, numbers

CHECK_EVERY_STEPS = 32  # a non-finite loss is noticed this late; more frequent checks would slow the device

Weights = dict[str, Tensor]


class Diverged(Failure):
    """The loss is no longer a finite number."""


def whole(model: nn.Module) -> nn.Module:
    """The whole `model`."""
    return model


@dataclass(frozen=True, eq=False)
class Training:
    """Trains `model` in place while you iterate over `events`: with OneCycle, or on a ladder of the range test.

    At each event, the training holds the state after that many updates. You can stop there and save its `state_dict`.
    An equal training then continues from that state to the same result, to the bit.
    """

    model: nn.Module
    batches: TrainBatches
    optimizer: Optimizer
    schedule: LRScheduler
    epochs: int
    precision: str
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None  # (C,) float32, the weight of each class in the loss
    valid: Iterable[tuple[Tensor, Tensor]] | None = None  # normalised images and labels
    ema: MovingAverage | None = None  # its module is validated and saved instead of `model`
    frozen: Frozen | None = None
    freezes_norms: bool = False  # batch norms keep their running statistics
    part: Callable[[nn.Module], nn.Module] = whole  # the part of the network that the batches go through
    is_compiled: bool = False  # updates run compiled, except a last batch that is smaller than the others
    accumulate: int = 1  # parts of a batch that go through the network in turn
    clip_grad_norm: float = 0.0  # largest norm of the gradient of an update (0: no limit)
    ranks: Ranks = ALONE  # the processes that share the training
    log: EventLog = field(default_factory=EventLog)
    weights: dict[str, Weights] = field(default_factory=dict)  # of the epochs `best` and `last`

    @property
    def steps_per_epoch(self) -> int:
        """The number of updates in one pass over the train split."""
        return len(self.batches)

    @cached_property
    def scaler(self) -> GradScaler:
        """Keeps small gradients above zero in fp16; does nothing in other number formats."""
        if self.precision == "fp16":  # the scaler may drop the first update, which torch then takes for a forgotten one
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        return GradScaler(self.batches.device.type, enabled=self.precision == "fp16")

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and saved: the moving average, if there is one."""
        return self.model if self.ema is None else self.ema.module

    def events(self) -> Iterator[StepEnd | EpochEnd]:
        """A StepEnd per update and an EpochEnd per epoch, from the current state to the end.

        Raises Diverged, with the update and its rate, within 32 updates of the first non-finite loss.
        """
        network = whole_batches = None
        for epoch in range(len(self.log.epochs) + 1, self.epochs + 1):
            self.model.train()
            if self.freezes_norms:
                freeze_norms(self.model)
            if self.frozen is not None:
                self.frozen.begin(epoch)
            if network is None or whole_batches is None or (self.ranks.size > 1 and self.frozen is not None):
                network = self.ranks.parallel(self.part(self.model))
                whole_batches = compiled(network) if self.is_compiled else network
            steps = self.log.open_steps
            started = time.perf_counter() - (steps[-1].seconds if steps else 0.0)
            yield from self._updates(epoch, network, whole_batches, started)
            self.ranks.average(*dict.fromkeys([self.model, self.evaluated]))
            check_finite(steps[-CHECK_EVERY_STEPS:])
            event = self._epoch_end(epoch, steps, started)
            self.log.record(event)
            weights = self.ranks.whole(self.evaluated.state_dict())
            self.weights["last"] = {name: each.detach().clone() for name, each in weights.items()}
            if self.log.best is event:
                self.weights["best"] = self.weights["last"]
            yield event
            self._help_with_states()

    def _updates(
        self, epoch: int, network: nn.Module, whole_batches: Callable[[Tensor], Tensor], started: float
    ) -> Iterator[StepEnd]:
        total_steps, step = self.epochs * len(self.batches), self.log.num_steps
        for images, targets in self.batches.epoch(epoch, len(self.log.open_steps)):
            lr, size = rate(self.optimizer), self.batches.whole_size(len(self.log.open_steps))
            forward = whole_batches if size == self.batches.batch_size else network
            loss, num_correct = train_step(
                forward,
                images,
                targets,
                self.optimizer,
                self.precision,
                self.label_smoothing,
                self.class_weights,
                self.scaler,
                self.ranks,
                size,
                accumulate=self.accumulate,
                clip_grad_norm=self.clip_grad_norm,
            )
            if self.ema is not None:
                self.ema.update_parameters(self.model)
            step += 1
            if step < total_steps:
                self.schedule.step()
            seconds = time.perf_counter() - started
            event = StepEnd(step - 1, step / len(self.batches), lr, loss, num_correct, size, seconds)
            self.log.record(event)
            yield event
            self._help_with_states()
            if step % CHECK_EVERY_STEPS == 0:
                check_finite(self.log.open_steps[-CHECK_EVERY_STEPS:])

    def _epoch_end(self, epoch: int, steps: Sequence[StepEnd], started: float) -> EpochEnd:
        num_images = sum(event.num_images for event in steps)
        losses = _numbers(event.loss for event in steps)
        train_loss = sum(loss * event.num_images for loss, event in zip(losses, steps, strict=True)) / num_images
        train_accuracy = sum(_numbers(event.num_correct for event in steps)) / num_images
        seconds = time.perf_counter() - started
        found: dict[str, float] = {}
        if self.valid is not None:
            found = self._validated(self.valid)
        return EpochEnd(
            epoch,
            self.log.num_steps,
            steps[-1].lr,
            train_loss,
            train_accuracy,
            found.get("loss"),
            found.get("accuracy"),
            seconds,
            num_images / seconds,
            found.get("balanced_accuracy"),
            found.get("macro_f1"),
        )

    def _validated(self, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Loss, accuracy, balanced accuracy and macro F1. Each rank evaluates some of the batches."""
        mine, found, network = self.ranks.share(batches), None, self.part(self.evaluated)
        with self.ranks.gathered(network):
            if (first := next(mine, None)) is not None:
                found = counts(*predict(network, chain([first], mine), self.precision))
        # Rank 0 always has a batch, so it knows how many counts there are.
        length = int(self.ranks.sum(torch.tensor(0 if self.ranks.number or found is None else len(found))))
        return numbers(self.ranks.sum(torch.zeros(length, dtype=torch.float64) if found is None else found))

    def state_dict(self) -> dict[str, Any]:
        """All that decides how the training continues, and its events so far. Raises Diverged for a non-finite loss."""
        check_finite(self.log.open_steps)
        self.ranks.ask_for_state(True)
        best, last = self.weights.get("best"), self.weights.get("last")
        return {
            **self._states(),
            "random": self.batches.random_states(),
            "history": self.log.state_dict(),
            "best": best,
            "last": None if last is best else last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Loads the `state_dict` of a training with the same parameters. Raises ValueError for any other state."""
        try:
            # A schedule accepts any names, also in place of its methods.
            if state["schedule"].keys() != self.schedule.state_dict().keys():
                raise ValueError("other names than a schedule's")
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            for kept in (state["best"], state["last"]):
                if kept is not None and _shapes(kept) != _shapes(self.evaluated.state_dict()):
                    raise ValueError("weights of another model")
            self.log.load_state_dict(state["history"], next(self.evaluated.parameters()).device)
            if self.log.open_steps:
                self.batches.load_random_states(state["random"])
            if state["best"] is not None:
                self.weights.update(best=state["best"], last=state["last"] or state["best"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"the kept state is not of this training ({' '.join(str(error).split())})") from None

    def _states(self) -> dict[str, Any]:
        states: dict[str, Any] = self.ranks.whole({name: part.state_dict() for name, part in self._parts().items()})
        return states

    def _help_with_states(self) -> None:
        """After an event: while rank 0 saves the state, the other ranks send their parts of it."""
        while self.ranks.ask_for_state(False):
            self._states()

    def _parts(self) -> dict[str, Any]:
        """By name, the parts that have a state and change during the training."""
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        if self.scaler.is_enabled():
            parts["scaler"] = self.scaler
        return parts if self.ema is None else {**parts, "ema": self.ema}


def check_finite(events: Sequence[StepEnd]) -> None:
    """Raises Diverged for the first of `events` whose loss is not finite."""
    for event, loss in zip(events, _numbers(event.loss for event in events), strict=True):
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss} at step {event.step} with lr {event.lr:.3g}")


def _numbers(scalars: Iterable[Any]) -> list[float]:
    # Waits for the device once, however many scalars there are.
    tensors = list(scalars)
    return torch.stack(tensors).tolist() if tensors else []


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
