"""Predictions for images without labels: as a table, as lines, and which images to check first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr

from pipeline.results import prediction_sets

NAMED_CLASSES = 5  # most classes of a set that a line names


@dataclass(frozen=True)
class Answers:
    """The predictions for n images. The last four are None if there is no calibration."""

    paths: np.ndarray  # (n,) texts
    images: np.ndarray  # (n, 3, S, S) uint8
    probabilities: np.ndarray  # (n, C), calibrated if there is a calibration
    unsure: np.ndarray | None  # (n,) bool: too little confidence
    distances: np.ndarray | None  # (n,) distance from the training images, in feature space
    unlike: np.ndarray | None  # (n,) bool: too far from the training images
    sets: np.ndarray | None = None  # (n, C) bool: the classes in the set of each image

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class (n,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """The probability (n,) of the likeliest class."""
        return self.probabilities.max(axis=1)


def table(answers: Answers, classes: Sequence[str], top_k: int) -> pd.DataFrame:
    """One row per image: path, class, confidence, unsure, entropy (nats), distance, unlike, set, and more.

    The further classes are class_2, probability_2 and so on, up to `top_k`. Unknown values have no column.
    """
    likeliest, probabilities = _likeliest(answers.probabilities, top_k)
    columns: dict[str, object] = {
        "path": answers.paths,
        "class": _names(likeliest[:, 0], classes),
        "confidence": probabilities[:, 0],
        "unsure": answers.unsure,
        "entropy": entr(answers.probabilities).sum(axis=1),
        "distance": answers.distances,
        "unlike": answers.unlike,
        "set": None if answers.sets is None else prediction_sets.as_texts(answers.sets, answers.probabilities, classes),
    }
    for place in range(1, likeliest.shape[1]):
        columns[f"class_{place + 1}"] = _names(likeliest[:, place], classes)
        columns[f"probability_{place + 1}"] = probabilities[:, place]
    return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def lines(answers: Answers, classes: Sequence[str], limit: float, coverage: float = 0.0) -> Iterator[str]:
    """One line per image, such as `photo.jpg: cat 93.1 %, then dog 4.0 %`. A line also names a set of several classes.

    limit: the usual distance from the training images. coverage: of the sets, if there are any.
    """
    likeliest, probabilities = _likeliest(answers.probabilities, 2)
    for row, path in enumerate(answers.paths):
        named = (
            f"{classes[known]} {100 * probability:.1f} %"
            for known, probability in zip(likeliest[row], probabilities[row], strict=True)
        )
        warning = "; unsure" if answers.unsure is not None and answers.unsure[row] else ""
        if answers.unlike is not None and answers.distances is not None and answers.unlike[row]:
            far = f"distance {answers.distances[row]:.3g}, usual up to {limit:.3g}"
            warning += f"; unlike the training images: {far}"
        among = "" if answers.sets is None else _set_in_words(_take(answers, np.array([row])), classes, coverage)
        yield f"{path}: {', then '.join(named)}{among}{warning}"


def _set_in_words(answer: Answers, classes: Sequence[str], coverage: float) -> str:
    """The classes in the set of one image, in words; empty if it is only one."""
    assert answer.sets is not None
    (names,) = prediction_sets.named(answer.sets, answer.probabilities, classes)
    others = f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else ""
    return f"; set for {100 * coverage:.4g} %: {', '.join(names[:NAMED_CLASSES])}{others}" if len(names) > 1 else ""


class Tally:
    """Summarises any number of answers: counts per class, and the images that a person should check first."""

    def __init__(self, num_classes: int, num_shown: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)  # images predicted for each class
        self.num_unsure = self.num_unlike = self.num_in_sets = 0
        self.shown: Answers | None = None
        self._num_shown = num_shown

    def add(self, answers: Answers) -> None:
        """Adds `answers` to the summary."""
        self.counts += np.bincount(answers.predicted, minlength=len(self.counts))
        self.num_unsure += 0 if answers.unsure is None else int(answers.unsure.sum())
        self.num_unlike += 0 if answers.unlike is None else int(answers.unlike.sum())
        self.num_in_sets += 0 if answers.sets is None else int(answers.sets.sum())
        first = most_doubtful(answers, self._num_shown)
        self.shown = first if self.shown is None else most_doubtful(_joined(self.shown, first), self._num_shown)


def most_doubtful(answers: Answers, count: int) -> Answers:
    """The `count` answers that a person should check first: unlike the training images, then least confident."""
    doubt = answers.confidence if answers.unlike is None else answers.confidence - answers.unlike
    return _take(answers, np.argsort(doubt, kind="stable")[:count])


def _joined(first: Answers, second: Answers) -> Answers:
    parts: dict[str, Any] = {
        name: None if each is None else np.concatenate([each, getattr(second, name)])
        for name, each in vars(first).items()
    }
    return Answers(**parts)


def _take(answers: Answers, positions: np.ndarray) -> Answers:
    parts: dict[str, Any] = {name: None if each is None else each[positions] for name, each in vars(answers).items()}
    return Answers(**parts)


def _likeliest(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes, probabilities), each (n, k), of the `count` likeliest classes (or all), likeliest first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(probabilities, order, axis=1)


def _names(positions: np.ndarray, classes: Sequence[str]) -> object:
    # A categorical, because changes to the texts of a table then run once per class, not once per row.
    return pd.Categorical.from_codes(positions.astype(np.int64), dtype=pd.CategoricalDtype(list(classes)))
