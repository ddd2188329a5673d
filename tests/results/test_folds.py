import numpy as np
import pytest
from scipy.stats import t

from pipeline.results import folds


def test_the_error_over_folds_counts_the_images_that_trainings_share():
    values = np.array([0.8, 0.9, 0.85, 0.95, 0.7])
    found = folds.mean(values)
    naive = values.std(ddof=1) / np.sqrt(5)
    assert found.value == pytest.approx(0.84)
    assert found.standard_error == pytest.approx(naive * np.sqrt(1 + 5 / 4))  # Nadeau and Bengio, equation 6
    assert found.high - found.value == found.value - found.low == pytest.approx(t.isf(0.025, 4) * found.standard_error)
