"""A training that can be left at any event, kept, and gone on with as if it had never been left."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Size, Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from pipeline.data.batches import TrainBatches
from pipeline.training import loop
from pipeline.training.events import EpochEnd, StepEnd
from pipeline.training.freezing import Frozen
from pipeline.training.history import History

Weights = dict[str, Tensor]


class Fitting:
    """A training about to run: iterate `events` to run it; its `history` and weights are those of the last event."""

    def __init__(
        self,
        model: nn.Module,
        batches: TrainBatches,
        optimizer: Optimizer,
        schedule: LRScheduler,
        ema: AveragedModel | None,
        *,
        epochs: int,
        precision: str,
        label_smoothing: float,
        class_weights: Tensor | None = None,
        valid: Iterable[tuple[Tensor, Tensor]] | None,
        frozen: Frozen | None = None,
        is_compiled: bool = False,
    ) -> None:
        self.history = History()
        self.best: Weights | None = None  # of the best epoch so far
        self.last: Weights | None = None  # of the last whole epoch
        self._batches = batches
        # What changes as it runs and can tell its state, by name.
        self._parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "schedule": schedule}
        if ema is not None:
            self._parts["ema"] = ema
        self._evaluated: nn.Module = model if ema is None else ema.module
        self._options: dict[str, Any] = {
            "epochs": epochs,
            "precision": precision,
            "label_smoothing": label_smoothing,
            "class_weights": class_weights,
            "valid": valid,
            "ema": ema,
            "frozen": frozen,
            "is_compiled": is_compiled,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Updates of one pass over the train split."""
        return len(self._batches)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self._evaluated

    def events(self) -> Iterator[StepEnd | EpochEnd]:
        """What `loop.fit` tells, from where the training stands to its end."""
        model, optimizer, schedule = (self._parts[name] for name in ("model", "optimizer", "schedule"))
        done: dict[str, Any] = {"done_epochs": len(self.history.epochs), "done_steps": self.history.under_way}
        for event in loop.fit(model, self._batches, optimizer, schedule, **self._options, **done):
            self.history.record(event)
            if isinstance(event, EpochEnd):
                self.last = {name: tensor.detach().clone() for name, tensor in self._evaluated.state_dict().items()}
                if self.history.best is event:
                    self.best = self.last
            yield event

    def state_dict(self) -> dict[str, Any]:
        """All that decides how the training goes on, and what it has told. Raises Diverged where that is no number."""
        loop.check_finite(self.history.under_way)
        return {
            **{name: part.state_dict() for name, part in self._parts.items()},
            "random": self._batches.random_states(),
            "history": self.history.state_dict(),
            "best": self.best,
            "last": None if self.last is self.best else self.last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` gave, of a training of the same parameters. Raises ValueError for another's."""
        try:
            # A schedule takes whatever it is given, also in place of its methods.
            if state["schedule"].keys() != self._parts["schedule"].state_dict().keys():
                raise ValueError("other names than a schedule's")
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
            for kept in (state["best"], state["last"]):
                if kept is not None and _shapes(kept) != _shapes(self._evaluated.state_dict()):
                    raise ValueError("other weights than those of its model")
            self.history.load_state_dict(state["history"], next(self._evaluated.parameters()).device)
            if self.history.under_way:
                self._batches.load_random_states(state["random"])
            self.best, self.last = state["best"], state["last"] or state["best"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"the kept state is not of this training ({' '.join(str(error).split())})") from None


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in weights.items()}
