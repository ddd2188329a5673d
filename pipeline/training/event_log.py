"""Records the events of a training so far: its epochs, its updates, and the best epoch."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.validation import FEW, is_clearly_worse, merit

FLOATS, INTEGERS = ("epoch", "lr", "seconds"), ("step", "num_images")  # of an update, besides loss and num_correct


class EventLog:
    """Records events; it can be saved, loaded and continued."""

    def __init__(self, select_by: str = "accuracy", num_valid: int = FEW) -> None:
        self._select_by = select_by
        self._num_valid = num_valid  # validation images
        self.epochs: list[EpochEnd] = []
        self.open_steps: list[StepEnd] = []  # updates of the epoch that has not ended
        self._ended: list[dict[str, Tensor]] = []  # updates of ended epochs; one block of columns per epoch

    @property
    def num_steps(self) -> int:
        """The number of updates so far."""
        return (self.epochs[-1].step if self.epochs else 0) + len(self.open_steps)

    @property
    def best(self) -> EpochEnd | None:
        """The best epoch on validation by `select_by` (of equals, the lower loss); without validation, the last.

        With few validation images, each epoch replaces the one before, unless it is clearly worse.
        """
        if self._num_valid < FEW:
            return functools.reduce(self._later, self.epochs) if self.epochs else None
        return max(self.epochs, key=lambda epoch: merit(epoch, self._select_by), default=None)

    def _later(self, kept: EpochEnd, epoch: EpochEnd) -> EpochEnd:
        return kept if is_clearly_worse(epoch, kept, self._num_valid) else epoch

    def record(self, event: StepEnd | EpochEnd) -> None:
        """Adds the next event."""
        if isinstance(event, StepEnd):
            self.open_steps.append(event)
        else:
            self._ended.append(_columns(self.open_steps))
            self.open_steps = []
            self.epochs.append(event)

    def steps(self) -> pd.DataFrame:
        """A table with one row per update: step, epoch, lr, loss, accuracy."""
        columns = self._columns()
        table = pd.DataFrame({name: columns[name].numpy() for name in ("step", "epoch", "lr")})
        accuracy = columns["num_correct"].double() / columns["num_images"]
        return table.assign(loss=columns["loss"].double().numpy(), accuracy=accuracy.numpy())

    def state_dict(self) -> dict[str, Any]:
        """The whole log, as tensors and plain values."""
        return {"epochs": [asdict(epoch) for epoch in self.epochs], "steps": self._columns()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Loads the result of `state_dict`. Losses of the open epoch go to `device`, where later ones will be."""
        self.epochs = [EpochEnd(**epoch) for epoch in state["epochs"]]
        num_ended = self.epochs[-1].step if self.epochs else 0
        self._ended = [{name: column[:num_ended] for name, column in state["steps"].items()}]
        rest = {name: column[num_ended:] for name, column in state["steps"].items()}
        plain = zip(*(rest[name].tolist() for name in (*FLOATS, *INTEGERS)), strict=True)
        tensors = {name: rest[name].to(device) for name in ("loss", "num_correct")}
        self.open_steps = [
            StepEnd(
                **dict(zip((*FLOATS, *INTEGERS), values, strict=True)),
                loss=tensors["loss"][i],
                num_correct=tensors["num_correct"][i],
            )
            for i, values in enumerate(plain)
        ]

    def _columns(self) -> dict[str, Tensor]:
        blocks = [*self._ended, _columns(self.open_steps)]
        return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


def _columns(steps: Sequence[StepEnd]) -> dict[str, Tensor]:
    """One tensor per field, on the CPU. Waits for the device once, whatever the number of updates."""
    plain = {name: torch.tensor([getattr(s, name) for s in steps], dtype=torch.float64) for name in FLOATS}
    plain |= {name: torch.tensor([getattr(s, name) for s in steps], dtype=torch.int64) for name in INTEGERS}
    if not steps:
        return {**plain, "loss": torch.empty(0), "num_correct": torch.empty(0, dtype=torch.int64)}
    measured = {name: torch.stack([getattr(s, name) for s in steps]).cpu() for name in ("loss", "num_correct")}
    return {**plain, **measured}
