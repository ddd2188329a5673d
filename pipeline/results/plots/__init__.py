"""Plain data in, matplotlib Figure out; nothing global, so that threads can draw at a time."""

from pipeline.results.plots.comparison import calibrations, curves_beside
from pipeline.results.plots.counts import class_counts
from pipeline.results.plots.images import attention_matrices, explanations, gallery, heat, watched
from pipeline.results.plots.results import (
    confusion_matrix,
    faithfulness,
    patch_size_by_rate,
    precision_recall,
    reliability,
)
from pipeline.results.plots.training import curves, lr_range

__all__ = [
    "attention_matrices",
    "calibrations",
    "class_counts",
    "confusion_matrix",
    "curves",
    "curves_beside",
    "explanations",
    "faithfulness",
    "gallery",
    "heat",
    "lr_range",
    "patch_size_by_rate",
    "precision_recall",
    "reliability",
    "watched",
]
