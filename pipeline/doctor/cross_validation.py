"""What networks say of images that they were not trained on: each image is in one fold, held out of one training."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from pipeline.data import Split, Splits
from pipeline.doctor.looks import SIDE
from pipeline.params import TrainParams
from pipeline.training import loop
from pipeline.training.assemble import Normalised, fitting
from pipeline.training.setup import Setup
from pipeline.training.views import Views

# What learns CIFAR-10 fastest (experiments/cifar10_fast.yaml), half as wide.
NETWORK = {"model": "fast", "width": 32, "image_size": SIDE, "valid_fraction": 0}
OPTIMIZER = {"optimizer": "muon", "normalise_weights": "on", "momentum": 0.6, "weight_decay": 0, "bias_lr": 2}
MAX_LR = 0.016
CYCLE = {"max_lr": MAX_LR, "pct_start": 0.1, "anneal": "linear", "label_smoothing": 0.2, "norm_momentum": 0.4}
AUGMENTATION = {"crop_padding": 2, "first_size": 24}
RECIPE = {**NETWORK, **OPTIMIZER, **CYCLE, **AUGMENTATION}

LARGEST_BATCH, SMALLEST_BATCH = 500, 32
UPDATES = 240  # of each training at least
LEAST_EPOCHS = 4
PREDICTED_AT_ONCE = 512


def probabilities(
    splits: Splits, *, folds: int, epochs: int | None, flip: str, seed: int, device: torch.device, precision: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fold by fold: the positions in the train split that it held out, and their class probabilities (n, C).

    The train split's images are thumbnails of 32 px, each class has `folds` of them or more. epochs: of each training;
    None for as many as make 240 updates, and 4 at least. Where `flip` has them mirrored, both views are averaged.
    """
    train = splits.train
    for learnt, held in _folds(train.labels, folds, seed):
        batch_size = min(LARGEST_BATCH, max(SMALLEST_BATCH, len(learnt) // 64), len(learnt))
        own = max(LEAST_EPOCHS, math.ceil(UPDATES * batch_size / len(learnt)))
        params = TrainParams(**RECIPE, batch_size=batch_size, epochs=epochs or own, flip=flip, seed=seed)
        part = replace(splits, train=_rows(train, learnt), valid=None, test=_rows(train, held))
        setup = Setup(params, part, device, precision)
        training = fitting(setup, params, MAX_LR)
        for _ in training.events():
            pass
        assert training.last is not None
        model = setup.model(seed)
        model.load_state_dict(training.last)
        asked = Views(model, 2) if setup.mirrors else model
        logits, _ = loop.predict(asked, Normalised(part, part.test, PREDICTED_AT_ONCE, device), precision)
        yield held, logits.double().softmax(1).numpy()


def _folds(labels: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels)


def _rows(split: Split, positions: np.ndarray) -> Split:
    names = [split.names[position] for position in positions]
    return Split(split.source, split.rows[positions], split.labels[positions], names)
