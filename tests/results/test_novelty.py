"""Distances from the training images, and the limit beyond which an image is unlike them."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from pipeline.results import novelty


def clouds(num_images, num_features, seed):
    """Features of two classes, correlated within each, and their labels."""
    draw = np.random.default_rng(seed)
    mixing = np.eye(num_features) + np.random.default_rng(9).uniform(0, 0.5, (num_features, num_features))
    labels = np.arange(num_images) % 2
    return (draw.normal(size=(num_images, num_features)) @ mixing + 5 * labels[:, None]).astype(np.float32), labels


def test_distances_are_mahalanobis_to_the_nearest_class():
    features, labels = clouds(4000, 6, seed=0)
    new, _ = clouds(50, 6, seed=1)
    known = novelty.fit(features, labels, new)
    means = [features[labels == label].mean(axis=0) for label in (0, 1)]
    inverse = np.linalg.inv(np.cov((features - np.array(means)[labels]).T, bias=True))
    expected = [min(mahalanobis(each, mean, inverse) for mean in means) for each in new]
    assert known.distances(new) == pytest.approx(expected, rel=0.02)  # the covariance is shrunk a little


def test_five_percent_of_validation_images_and_all_distant_images_are_beyond_the_limit():
    features, labels = clouds(1000, 8, seed=0)
    valid, _ = clouds(500, 8, seed=1)
    known = novelty.fit(features, labels, valid)
    # The limit is distance number ceil(0.95 * 501) = 476 of 500.
    assert known.unlike(known.distances(valid)).sum() == 24
    between = np.full((1, 8), 2.5, np.float32)
    off_the_line = np.eye(8, dtype=np.float32) * 30
    assert known.unlike(known.distances(off_the_line)).all()
    assert known.distances(features + 100).min() > known.distances(between).max()


def test_few_validation_images_also_keep_the_declared_rate_of_alarms_on_familiar_images():
    rates = []
    for seed in range(60):
        features, labels = clouds(300, 5, seed)
        valid, new = clouds(30, 5, 1000 + seed)[0], clouds(400, 5, 2000 + seed)[0]
        known = novelty.fit(features, labels, valid)
        rates.append(known.unlike(known.distances(new)).mean())
    assert 0.02 < np.mean(rates) <= 0.05  # 1 of 31 is expected


def test_directions_of_small_variance_share_one_variance():
    draw = np.random.default_rng(0)
    spread = np.r_[np.full(novelty.RANK, 3.0), np.full(40, 1.0)]
    features = draw.normal(size=(20_000, len(spread))) * spread
    known = novelty.fit(features, np.zeros(len(features), int), features[:100])
    assert known.directions.shape == (len(spread), novelty.RANK)
    new = draw.normal(size=(50, len(spread))) * spread
    assert known.distances(new) == pytest.approx(np.linalg.norm(new / spread, axis=1), rel=0.05)


@pytest.mark.parametrize("num_images", [4, 20])
def test_fewer_images_than_features_and_constant_features_are_enough(num_images):
    features, labels = clouds(num_images, 40, seed=0)
    valid, _ = clouds(20, 40, seed=1)
    features[:, :3] = valid[:, :3] = 0
    known = novelty.fit(features, labels, valid)
    assert np.isfinite(known.distances(valid)).all() and 0 < known.limit < np.inf
    lit = valid.copy()
    lit[:, 0] = 50  # this feature was constant in training
    assert known.unlike(known.distances(lit)).all()


def test_equal_features_for_all_images_are_no_error():
    same = np.ones((10, 3), np.float32)
    known = novelty.fit(same, np.arange(10) % 2, same)
    assert not known.unlike(known.distances(same)).any()
    assert known.unlike(known.distances(same + 1)).all()


def test_nan_features_are_unlike_and_features_of_another_network_are_refused():
    features, labels = clouds(100, 4, seed=0)
    known = novelty.fit(features, labels, features)
    assert known.unlike(known.distances(np.full((1, 4), np.nan, np.float32))).all()
    with pytest.raises(ValueError, match="5 features, but the calibration has 4"):
        known.distances(np.ones((1, 5), np.float32))
