"""Functions from plain data to a matplotlib Figure, without global state, so that several threads can draw at once."""

from pipeline.results.plots.comparison import calibrations, curves_beside
from pipeline.results.plots.curves import curves
from pipeline.results.plots.evaluation import (
    class_counts,
    confusion_matrix,
    faithfulness,
    patch_size_by_rate,
    precision_recall,
    randomisation,
    reliability,
)
from pipeline.results.plots.forest import operating_points, prediction_sets, slices
from pipeline.results.plots.images import attention_matrices, explanations, gallery, heat, watched
from pipeline.results.plots.learning_curve import learning_curve
from pipeline.results.plots.range_test import lr_range, short_cycles
from pipeline.results.plots.rejection import risk_coverage
from pipeline.results.plots.robustness import corruptions, robustness

__all__ = [
    "attention_matrices",
    "calibrations",
    "class_counts",
    "confusion_matrix",
    "corruptions",
    "curves",
    "curves_beside",
    "explanations",
    "faithfulness",
    "gallery",
    "heat",
    "learning_curve",
    "lr_range",
    "operating_points",
    "patch_size_by_rate",
    "precision_recall",
    "prediction_sets",
    "randomisation",
    "reliability",
    "risk_coverage",
    "robustness",
    "short_cycles",
    "slices",
    "watched",
]
