"""Labels that are probably wrong: confident learning over what cross-validated networks say."""

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_self_confidence_for_each_label


def can_be_checked(labels: np.ndarray, folds: int) -> np.ndarray:
    """(N,) bool: images of classes with `folds` images or more, so that each fold's training has seen the class."""
    return np.bincount(labels)[labels] >= folds


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """A row per suspect, the likeliest error first: its position, `given` and `suggested` class, their probabilities.

    labels: (N,) of 0 to C - 1, each there. probabilities: (N, C), of networks that did not learn from the image.
    Confident learning (Northcutt et al. 2021, arXiv:1911.00068): an image counts as of another class where its
    probability is above the mean that images of that class have; from those counts follows how many labels of each
    class are wrong, and so many of the least confident are named (cleanlab's prune_by_class).
    """
    wrong = find_label_issues(labels, probabilities, filter_by="prune_by_class", n_jobs=1)
    confidence = get_self_confidence_for_each_label(labels, probabilities)
    found = np.flatnonzero(wrong)
    found = found[np.argsort(confidence[found], kind="stable")]
    suggested = probabilities[found].argmax(1)
    return pd.DataFrame(
        {
            "image": found,
            "given": labels[found],
            "suggested": suggested,
            "probability_of_given": confidence[found],
            "probability_of_suggested": probabilities[found, suggested],
        }
    )
