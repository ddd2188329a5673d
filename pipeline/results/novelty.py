"""Measures how far images are from a network's training images, in its own features.

The measure is the Mahalanobis distance to the nearest class (Lee et al. 2018, arXiv:1807.03888). It was chosen by an
experiment with a network of 64 % validation accuracy (`fast`, 6 epochs, 6,000 images of CIFAR-10), with the limit that
flags 1 % of its test images. The table shows how many of about 300 images each were flagged:

    distance, features                      colour noise  grey noise  one colour  blurred patches  scanned digits
    Mahalanobis, `models.features`                 100 %       100 %        75 %             71 %            44 %
    Mahalanobis, penultimate layer                 100 %         0 %         0 %              0 %             0 %
    tenth neighbour, penultimate layer *             0 %         0 %        43 %              7 %             0 %

    * scaled features (Sun et al. 2022, arXiv:2204.06507)
"""

from dataclasses import dataclass

import numpy as np

QUANTILE = 0.99  # of the validation images' distances; an image beyond it is unlike the training images
# The least variance of a direction, as a share of the mean variance and absolute: it must not be 0 to divide by it.
LEAST_SHARE, LEAST_VARIANCE = 1e-6, 1e-12


@dataclass(frozen=True)
class Familiar:
    """The features of a training's images, and the usual distance of its validation images from them."""

    whitening: np.ndarray  # (D, D) float32: features times this have variance 1 within a class, in every direction
    means: np.ndarray  # (classes, D) float32: the whitened mean of each class
    limit: float  # 99 % of the validation images are within this distance

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distances (N,) of features (N, D) to the nearest class, in standard deviations.

        Raises ValueError if the training images have another number of features.
        """
        if features.shape[1] != len(self.whitening):
            raise ValueError(f"{features.shape[1]} features, but the calibration has {len(self.whitening)}")
        return _to_nearest(features @ self.whitening, self.means)

    def unlike(self, distances: np.ndarray) -> np.ndarray:
        """Whether each distance is beyond the limit or NaN: (N,) bool."""
        return ~(distances <= self.limit)


def fit(features: np.ndarray, labels: np.ndarray, valid_features: np.ndarray) -> Familiar:
    """Fits `features` (N, D) of train images with `labels` (N,); the limit comes from the validation images' features.

    The covariance within the classes is shrunk (Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4), so that there
    may be fewer images than features.
    """
    # Imported late, so that a prediction for one photo does not wait for it.
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
    """The Euclidean distance (N,) of `points` (N, D) from the nearest of `centres` (K, D)."""
    exact, known = points.astype(np.float64), centres.astype(np.float64)
    squares = (exact**2).sum(axis=1)[:, None] - 2 * exact @ known.T + (known**2).sum(axis=1)
    return np.sqrt(np.maximum(squares.min(axis=1), 0))
