"""What a classifier says of images without labels: as a table, as lines, and which of them to doubt first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import entr


@dataclass(frozen=True)
class Answers:
    """What a classifier says of n images; `calibrated`, `distances` and `unlike` are None where nothing is known."""

    paths: np.ndarray  # (n,) of texts
    images: np.ndarray  # (n, 3, S, S) uint8
    probabilities: np.ndarray  # (n, C)
    calibrated: np.ndarray | None  # (n,) probability of the likeliest class at the fitted temperature
    distances: np.ndarray | None  # (n,) from the training images, in feature space
    unlike: np.ndarray | None  # (n,) bool: too far from them

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class (n,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        """Its probability (n,), as the network gives it."""
        return self.probabilities.max(axis=1)


def table(answers: Answers, classes: Sequence[str], top_k: int) -> pd.DataFrame:
    """A row per image: path, class, confidence, calibrated, entropy (nats), distance, unlike_training, and the others.

    Those are class_2, probability_2 and so on, `top_k` or all classes in all. What is not known has no column.
    """
    likeliest, probabilities = _likeliest(answers.probabilities, top_k)
    columns: dict[str, object] = {
        "path": answers.paths,
        "class": _names(likeliest[:, 0], classes),
        "confidence": probabilities[:, 0],
        "calibrated": answers.calibrated,
        "entropy": entr(answers.probabilities).sum(axis=1),
        "distance": answers.distances,
        "unlike_training": answers.unlike,
    }
    for place in range(1, likeliest.shape[1]):
        columns[f"class_{place + 1}"] = _names(likeliest[:, place], classes)
        columns[f"probability_{place + 1}"] = probabilities[:, place]
    return pd.DataFrame({name: column for name, column in columns.items() if column is not None})


def lines(answers: Answers, classes: Sequence[str], limit: float) -> Iterator[str]:
    """A line per image, such as `photo.jpg: cat 93.1 % (calibrated 90.2 %), then dog 4.0 %`."""
    likeliest, probabilities = _likeliest(answers.probabilities, 2)
    for row, path in enumerate(answers.paths):
        first, *others = (
            f"{classes[known]} {100 * probability:.1f} %"
            for known, probability in zip(likeliest[row], probabilities[row], strict=True)
        )
        calibrated = "" if answers.calibrated is None else f" (calibrated {100 * answers.calibrated[row]:.1f} %)"
        warning = ""
        if answers.unlike is not None and answers.distances is not None and answers.unlike[row]:
            far = f"{answers.distances[row]:.3g} from them, up to {limit:.3g} is usual"
            warning = f"; unlike the training images: {far}"
        yield f"{path}: {', then '.join([first + calibrated, *others])}{warning}"


class Tally:
    """What is left of all the answers that went by, however many, and which images of them to doubt first."""

    def __init__(self, num_classes: int, num_shown: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)  # images predicted to be of each class
        self.num_unlike = 0
        self.shown: Answers | None = None
        self._num_shown = num_shown

    def add(self, answers: Answers) -> None:
        """Counts these too."""
        self.counts += np.bincount(answers.predicted, minlength=len(self.counts))
        self.num_unlike += 0 if answers.unlike is None else int(answers.unlike.sum())
        first = to_doubt_first(answers, self._num_shown)
        self.shown = first if self.shown is None else to_doubt_first(_joined(self.shown, first), self._num_shown)


def to_doubt_first(answers: Answers, count: int) -> Answers:
    """The `count` of `answers` that a person should look at first: unlike the training images, then least confident."""
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
    """Classes and probabilities (n, k) of the `count` likeliest, or of all, the likeliest first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(probabilities, order, axis=1)


def _names(positions: np.ndarray, classes: Sequence[str]) -> object:
    # Not an array of texts: what is done to the texts of a table is done once for each class.
    return pd.Categorical.from_codes(positions.astype(np.int64), dtype=pd.CategoricalDtype(list(classes)))
