"""The rates that other libraries suggest for the recipes of `benchmarks.regret`, by their own code and defaults.

pip install torch-lr-finder
python -m benchmarks.regret_libraries DATA [recipe ...]

Lightning's and torch-lr-finder's range tests get the recipe's network, optimizer and augmented batches. Each rate
is added to benchmarks/regret.jsonl as a rule, which `python -m benchmarks.regret table` then compares.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning
import torch
from lightning.pytorch.tuner import Tuner
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from torch_lr_finder import LRFinder

from benchmarks.regret import recipe_of
from benchmarks.regret_recipes import RECIPES
from benchmarks.regret_results import keep
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training

FIRST_RATE = 1e-5  # of torch-lr-finder, whose first rate is the optimizer's


class Stream(IterableDataset):
    """The batches of a training, epoch after epoch."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            epoch += 1
            yield from self.training.batches.epoch(epoch)


class Module(lightning.LightningModule):
    """A recipe's network and optimizer, as Lightning needs them."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.lr = FIRST_RATE
        self.network = training.model
        self._optimizer = training.optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
        return self._optimizer


def of_lightning(recipe: Recipe) -> float | None:
    """The suggestion of Lightning's `Tuner.lr_find`."""
    training = recipe.one_cycle(FIRST_RATE)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    loader = DataLoader(Stream(training), batch_size=None)
    found = Tuner(trainer).lr_find(Module(training), train_dataloaders=loader)
    return None if found is None else found.suggestion()


def of_torch_lr_finder(recipe: Recipe) -> float | None:
    """The suggestion of torch-lr-finder: 100 updates up to a rate of 10, then the steepest gradient."""
    training = recipe.one_cycle(FIRST_RATE)
    for group in training.optimizer.param_groups:
        group["lr"] = FIRST_RATE
        group.pop("initial_lr", None)
    finder = LRFinder(training.model, training.optimizer, nn.CrossEntropyLoss(), device="cpu")
    finder.range_test(DataLoader(Stream(training), batch_size=None), end_lr=10, num_iter=100)
    _, rate = finder.plot(suggest_lr=True)
    return None if rate is None else float(rate)


LIBRARIES: dict[str, Callable[[Recipe], float | None]] = {
    "Lightning": of_lightning,
    "torch-lr-finder": of_torch_lr_finder,
}


def main(data: Path, names: list[str]) -> None:
    """Adds the rate of each library for each recipe to the results."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    for name in names:
        recipe = recipe_of(name, data)
        for library, suggest in LIBRARIES.items():
            if library == "Lightning" and recipe.params.optimizer == "muon":
                continue  # Lightning passes a closure to the optimizer, which this one does not take
            rate = suggest(recipe)
            keep({"recipe": name, "kind": "rule", "rule": library, "lr": rate})
            print(f"{name}: {library} {rate}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(RECIPES))
