"""Finds labels that are probably wrong, by confident learning on the predictions of cross-validated networks."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_self_confidence_for_each_label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from pipeline.data import Split, Splits
from pipeline.data.batches import NormalisedBatches
from pipeline.doctor.looks import SIDE
from pipeline.models.tta import Views
from pipeline.params import TrainParams
from pipeline.training import probe
from pipeline.training.recipe import Recipe
from pipeline.training.update import predict

# The recipe that learns CIFAR-10 fastest (experiments/cifar10_fast.yaml), with half the width.
NETWORK = {"model": "fast", "width": 32, "image_size": SIDE, "valid_fraction": 0}
OPTIMIZER = {"optimizer": "muon", "normalise_weights": "on", "momentum": 0.6, "weight_decay": 0, "bias_lr": 2}
MAX_LR = 0.016
CYCLE = {"max_lr": MAX_LR, "pct_start": 0.1, "anneal": "linear", "label_smoothing": 0.2, "norm_momentum": 0.4}
AUGMENTATION = {"crop_padding": 2, "first_size": 24}
RECIPE = {**NETWORK, **OPTIMIZER, **CYCLE, **AUGMENTATION}

LARGEST_BATCH, SMALLEST_BATCH = 500, 32
UPDATES = 240  # fewest updates of each training, if `epochs` is not given
LEAST_EPOCHS = 4
PREDICTED_AT_ONCE = 512


def probabilities(
    splits: Splits,
    families: np.ndarray,
    *,
    folds: int,
    epochs: int | None,
    flip: str,
    seed: int,
    device: torch.device,
    precision: str,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each fold: the positions in the train split that it holds out, and their class probabilities (n, C).

    The images of the train split must be thumbnails of 32 px, and each class must have at least `folds` families.
    families: (N,) int64 from `families`; a fold holds out whole families.
    epochs: of each training; None for enough to make 240 updates, and at least 4. If `flip` mirrors images, the
    predictions for both views are averaged.
    """
    train = splits.train
    for learnt, held in _folds(train.labels, families, folds, seed):
        batch_size = min(LARGEST_BATCH, max(SMALLEST_BATCH, len(learnt) // 64), len(learnt))
        enough_epochs = max(LEAST_EPOCHS, math.ceil(UPDATES * batch_size / len(learnt)))
        params = TrainParams(**RECIPE, batch_size=batch_size, epochs=epochs or enough_epochs, flip=flip, seed=seed)
        part = replace(splits, train=_rows(train, learnt), valid=None, test=_rows(train, held))
        recipe = Recipe(params, part, device, precision)
        training = recipe.one_cycle(MAX_LR)
        for _ in training.events():
            pass
        model = recipe.model(seed)
        model.load_state_dict(training.weights["last"])
        network = Views(model, 2) if recipe.mirrors else model
        logits, _ = predict(network, NormalisedBatches(part, part.test, PREDICTED_AT_ONCE, device), precision)
        yield held, logits.double().softmax(1).numpy()


def probabilities_from_features(
    features: np.ndarray, labels: np.ndarray, families: np.ndarray, *, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same as `probabilities`, from `features` (N, D) of a pretrained network, by logistic regressions on them.

    The first fold chooses the strength of all. labels: (N,) from 0 to C - 1.
    """
    strength = None
    for learnt, held in _folds(labels, families, folds, seed):
        strength = strength or probe.strength(features[learnt], labels[learnt], features[held], labels[held])
        yield held, probe.predict(strength, features[learnt], labels[learnt], features[held])


def families(groups: Sequence[str], images: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """A number per image, (N,) int64: equal for images of one group, and for an image and its twin.

    groups: N names, empty for an image that is in none. images, twins: positions of pairs. A network that learned from
    one image of a family has seen what the others show, so it cannot judge their labels.
    """
    first: dict[str, int] = {}
    others = np.array([first.setdefault(name, place) if name else place for place, name in enumerate(groups)])
    start, end = np.concatenate([np.arange(len(groups)), images]), np.concatenate([others, twins])
    links = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(len(groups), len(groups)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _folds(labels: np.ndarray, families: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    places = np.zeros(len(labels))
    if len(np.unique(families)) == len(families):  # spreads the classes more evenly
        return StratifiedKFold(folds, shuffle=True, random_state=seed).split(places, labels)
    return StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(places, labels, families)


def _rows(split: Split, positions: np.ndarray) -> Split:
    names = [split.names[position] for position in positions]
    return Split(split.source, split.rows[positions], split.labels[positions], names)


def can_be_checked(labels: np.ndarray, families: np.ndarray, folds: int) -> np.ndarray:
    """(N,) bool: images of classes with at least `folds` families, so that the training of each fold sees the class."""
    pairs = np.unique(np.stack([labels, families]), axis=1)
    return np.bincount(pairs[0])[labels] >= folds


def suspects(labels: np.ndarray, probabilities: np.ndarray, of_copy: np.ndarray | None = None) -> pd.DataFrame:
    """A row per suspect, the likeliest error first: its position, `given` and `suggested` class, their probabilities.

    labels: (N,) from 0 to C - 1; each class occurs. probabilities: (N, C), from networks that did not learn from the
    image. Confident learning (Northcutt et al. 2021, arXiv:1911.00068) counts an image for another class if its
    probability is above the mean of that class's own images. These counts give the number of wrong labels in each
    class. The table lists that many of its least confident images (cleanlab's prune_by_class).

    of_copy: (N,) the class of an exact copy with another label; -1 if there is none. Such images come first, and are
    listed whatever the networks say, because the networks learned from both.
    """
    wrong = find_label_issues(labels, probabilities, filter_by="prune_by_class", n_jobs=1)
    confidence = get_self_confidence_for_each_label(labels, probabilities)
    other = np.full(len(labels), -1) if of_copy is None else of_copy
    found = np.flatnonzero(wrong | (other >= 0))
    found = found[np.lexsort([confidence[found], other[found] < 0])]
    suggested = np.where(other[found] >= 0, other[found], probabilities[found].argmax(1))
    return pd.DataFrame(
        {
            "image": found,
            "given": labels[found],
            "suggested": suggested,
            "probability_of_given": confidence[found],
            "probability_of_suggested": probabilities[found, suggested],
        }
    )
