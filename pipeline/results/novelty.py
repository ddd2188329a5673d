"""How far images are from those a network was trained on, in its own features.

The distance is Mahalanobis's to the nearest class (Lee et al. 2018, arXiv:1807.03888). It was chosen by trial, on a
network of 64 % validation accuracy (`fast`, 6 epochs, 6,000 images of CIFAR-10), at the limit that flags 1 % of its
test images. Of colour noise, grey noise, one colour, blurred patches and scanned digits, some 300 each, it flags 100,
100, 75, 71 and 44 % by the features of `models.features`; by the penultimate ones alone 100, 0, 0, 0 and 0 %; the
distance to the tenth neighbour among those, scaled (Sun et al. 2022, arXiv:2204.06507), 0, 0, 43, 7 and 0 %.
"""

from dataclasses import dataclass

import numpy as np

QUANTILE = 0.99  # of validation's distances: beyond it an image is unlike the training images
# So that a feature that never varies in training can be divided by.
LEAST_SHARE, LEAST_VARIANCE = 1e-6, 1e-12  # of the mean variance; at all


@dataclass(frozen=True)
class Familiar:
    """The features that a training's images have, and how far from them its validation images are."""

    whitening: np.ndarray  # (D, D) float32: features times this vary by 1 within a class, in every direction
    means: np.ndarray  # (classes, D) float32: of each class, whitened
    limit: float  # the distance that 99 % of the validation images stay within

    def distances(self, features: np.ndarray) -> np.ndarray:
        """To the nearest class, in standard deviations, (N,) of features (N, D). Raises ValueError for another D."""
        if features.shape[1] != len(self.whitening):
            raise ValueError(f"{features.shape[1]} features, not the {len(self.whitening)} of the calibration")
        return _to_nearest(features @ self.whitening, self.means)

    def unlike(self, distances: np.ndarray) -> np.ndarray:
        """(N,) bool: beyond the limit, or no number."""
        return ~(distances <= self.limit)


def fit(features: np.ndarray, labels: np.ndarray, valid_features: np.ndarray) -> Familiar:
    """What `features` (N, D) of train images with `labels` (N,) have in common, measured on those of validation.

    The covariance is that within the classes, shrunk as Ledoit and Wolf do (2004, doi:10.1016/S0047-259X(03)00096-4),
    so that fewer images than features will do.
    """
    # Imported late, so that one photo can be answered for without waiting for it.
    from sklearn.covariance import ledoit_wolf

    exact = features.astype(np.float64)
    classes, which = np.unique(labels, return_inverse=True)
    means = np.stack([exact[which == position].mean(axis=0) for position in range(len(classes))])
    covariance, _ = ledoit_wolf(exact - means[which], assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    least = max(LEAST_SHARE * variances.mean(), LEAST_VARIANCE)
    whitening = directions / np.sqrt(np.maximum(variances, least))
    known = Familiar(whitening.astype(np.float32), (means @ whitening).astype(np.float32), limit=0.0)
    return Familiar(known.whitening, known.means, float(np.quantile(known.distances(valid_features), QUANTILE)))


def _to_nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Euclid's distance (N,) of `points` (N, D) from the nearest of `centres` (K, D)."""
    exact, known = points.astype(np.float64), centres.astype(np.float64)
    squares = (exact**2).sum(axis=1)[:, None] - 2 * exact @ known.T + (known**2).sum(axis=1)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))
