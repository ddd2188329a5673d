"""Measures the network on each slice of the test images, such as the photos of one camera, and names the worst."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.decoder import sizes
from pipeline.doctor import looks
from pipeline.history.trained_model import ModelAndImages
from pipeline.progress import say
from pipeline.results import plots, slices
from pipeline.tracking.run import Run


def report(
    run: Run, trained: ModelAndImages, folder: str, correct: np.ndarray, groups: np.ndarray | None
) -> dict[str, float]:
    """Logs slices.csv and slices.png, names the worst slice, and returns its numbers as metrics; empty without slices.

    folder: of the images. correct: (N,) bool of the test images. groups: (N,) int64, or None.
    """
    columns, too_many = slices.usable(_columns(trained, folder))
    if too_many:
        say(f"columns with too many values for slices: {', '.join(too_many)}")
    table = slices.table(correct, columns, groups)
    if table.empty:
        return {}
    run.table("slices.csv", table)
    run.figure("slices.png", plots.slices(table, float(correct.mean())))
    worst = table.iloc[0]
    interval = f"interval for {len(table)} slices {worst.low:.2%} to {worst.high:.2%}"
    found = f"{worst.accuracy:.2%} ({interval}, n = {worst.images})"
    but = f", below the {correct.mean():.2%} of all" if worst.below else "; this may be chance"
    say(f"worst slice: {worst['column']} {worst.value}, accuracy {found}{but}")
    return {
        "test/slices": float(len(table)),
        "test/worst_slice_accuracy": float(worst.accuracy),
        "test/worst_slice_accuracy_low": float(worst.low),
        "test/worst_slice_accuracy_high": float(worst.high),
    }


def _columns(trained: ModelAndImages, folder: str) -> Mapping[str, Sequence[str]]:
    """The columns of the table of labels; without any, what the images themselves show."""
    test = trained.splits.test
    if trained.splits.columns:
        return {name: [cells.get(each, "") for each in test.names] for name, cells in trained.splits.columns.items()}
    seen = looks.survey(test, progress=False)
    measured = {"brightness": seen.statistics[:, :3].mean(1), "sharpness": 1 - seen.blur}
    if trained.params.dataset == "folder":
        of_files = sizes(Path(folder), test.names, progress=False).astype(np.float64)
        of_files[of_files == 0] = np.nan  # a file that is gone
        width, height = of_files.T
        measured |= {"shorter side (px)": np.minimum(width, height), "width over height": width / height}
    return {name: slices.thirds(values) for name, values in measured.items()}
