"""Measures how far images are from a network's training images, in its own features.

The measure is the Mahalanobis distance to the nearest class (Lee et al. 2018, arXiv:1807.03888). All classes share one
covariance. `models.features` takes the features. docs/predicting.md has the measurements behind both choices.
"""

from dataclasses import dataclass

import numpy as np

ALARMS = 0.05  # the share of familiar images that may be flagged
RANK = 64  # directions with a variance of their own; all others share one
# The least variance of a direction, as a share of the mean variance and absolute: it must not be 0 to divide by it.
LEAST_SHARE, LEAST_VARIANCE = 1e-6, 1e-12


@dataclass(frozen=True)
class Familiar:
    """The features of a training's images, and the usual distance of its validation images from them."""

    means: np.ndarray  # (classes, D) float32: the mean of each class
    directions: np.ndarray  # (D, R) float32: |difference @ directions|² is subtracted from the squared distance
    scale: float  # one over the variance that all other directions share
    limit: float  # 95 % of the validation images are within this distance

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distances (N,) of features (N, D) to the nearest class, in standard deviations.

        Raises ValueError if the training images have another number of features.
        """
        if features.shape[1] != self.means.shape[1]:
            raise ValueError(f"{features.shape[1]} features, but the calibration has {self.means.shape[1]}")
        exact, means = features.astype(np.float64), self.means.astype(np.float64)
        directions = self.directions.astype(np.float64)
        taken_off = _squares(exact @ directions, means @ directions)
        squares = self.scale * _squares(exact, means) - taken_off
        return np.sqrt(np.maximum(squares.min(axis=1), 0))

    def unlike(self, distances: np.ndarray) -> np.ndarray:
        """Whether each distance is beyond the limit or NaN: (N,) bool."""
        return ~(distances <= self.limit)


def fit(features: np.ndarray, labels: np.ndarray, valid_features: np.ndarray) -> Familiar:
    """Fits `features` (N, D) of train images with `labels` (N,); the limit comes from the validation images' features.

    The covariance within the classes is shrunk (Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4), so that there
    may be fewer images than features. All but its largest variances are replaced by their mean (Tipping and Bishop
    1999, doi:10.1111/1467-9868.00196): this keeps the file small. A new image like the validation images is beyond the
    limit with a probability of at most 5 %, if there are 19 of them or more.
    """
    # Imported late, so that a prediction for one photo does not wait for it.
    from sklearn.covariance import ledoit_wolf

    exact = features.astype(np.float64)
    classes, which = np.unique(labels, return_inverse=True)
    means = np.stack([exact[which == position].mean(axis=0) for position in range(len(classes))])
    covariance, _ = ledoit_wolf(exact - means[which], assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, max(LEAST_SHARE * variances.mean(), LEAST_VARIANCE))
    rank = min(RANK, len(variances) - 1)
    scale = 1 / variances[: len(variances) - rank].mean()
    large = variances[len(variances) - rank :]
    scaled = directions[:, len(variances) - rank :] * np.sqrt(np.maximum(scale - 1 / large, 0))
    known = Familiar(means.astype(np.float32), scaled.astype(np.float32), float(scale), limit=0.0)
    usual = np.sort(known.distances(valid_features))
    place = min(int(np.ceil((1 - ALARMS) * (len(usual) + 1))), len(usual))
    return Familiar(known.means, known.directions, known.scale, float(usual[place - 1]))


def _squares(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The squared Euclidean distances (N, K) of `points` (N, D) from `centres` (K, D)."""
    return (points**2).sum(axis=1)[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
