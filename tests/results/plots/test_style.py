"""What holds for every figure: any text is drawn literally, and drawing changes no settings."""

import ast
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from pipeline.results import metrics, plots
from pipeline.results.plots import style
from tests.results.plots.drawings import (
    HOSTILE,
    RATES,
    RISKS,
    STEPS,
    beside,
    epochs,
    ladder,
    pictures,
    removal,
    render,
    sliced,
)


def all_figures(name):
    """Every figure, with `name` in each place for a user's text."""
    ece, bins = metrics.calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    maps = np.ones((1, 8, 6))
    return [
        plots.curves(epochs(2), STEPS, name, best=2),
        plots.lr_range(ladder(), RATES, "steepest", 1e-2, name),
        plots.lr_range(ladder(), {}, None, None, name, name),
        plots.confusion_matrix(np.array([[3, 1], [0, 2]]), [name, "other"], normalised=True),
        plots.reliability(bins, ece, name),
        plots.risk_coverage(RISKS, (0.5, 0.1), 0.02, name),
        plots.gallery(pictures(1), [f"{name} → {name} 0.98"], name),
        plots.explanations(pictures(1), [("map", maps)], [f"true {name}\npredicted {name}"], name),
        plots.attention_matrices(pictures(1), np.ones((1, 2, 4, 4)), [name], name),
        plots.faithfulness(removal(), {"gradcam": 0.3, "random map": 0.0}, name),
        plots.randomisation(pd.DataFrame({"part": [name], "similarity": [0.5], "standard_error": [np.nan]}), name),
        plots.calibrations({name: bins}, name),
        plots.slices(sliced(name), 0.5),
        plots.curves_beside(beside(name), name),
    ]


@pytest.mark.parametrize("name", ["$x_{", "猫 a$b$", "x" * 300])
def test_users_texts_are_drawn_literally_in_every_figure(name):
    for figure in all_figures(name):
        assert render(figure).shape[1] == round(figure.get_figwidth() * 100)


def test_every_hostile_class_name_is_drawn():
    count = len(HOSTILE)
    render(plots.confusion_matrix(np.ones((count, count), dtype=int), HOSTILE, normalised=False))
    render(plots.gallery(pictures(count), [f"{name} → {name} 0.98" for name in HOSTILE], "digits"))


@pytest.mark.parametrize(
    ("text", "fitted"),
    [
        ("cat", "cat"),
        ("$5 to $6", r"\$5 to \$6"),
        ("猫", "U+732B"),
        ("a\tb", "a b"),
        ("", ""),
        ("0123456789abcdef", "01234…cdef"),
    ],
)
def test_fit_changes_no_short_text_and_keeps_both_ends_of_a_long_one(text, fitted):
    assert style.fit(text, 10) == fitted


@pytest.mark.parametrize("text", ["one two three four five six", "x" * 60, "a b" * 20, "ab " + "y" * 17])
def test_fit_keeps_to_its_lines_and_width(text):
    rows = style.fit(text, 10, lines=2).split("\n")
    assert len(rows) <= 2
    assert all(len(row) <= 10 for row in rows)


def test_drawing_never_changes_matplotlibs_settings(monkeypatch):
    def refuse(self, key, value):
        raise AssertionError(f"{key} is set for the whole process")

    monkeypatch.setattr(mpl.RcParams, "__setitem__", refuse)
    for figure in all_figures("digits"):
        assert figure.axes


def test_several_threads_draw_the_same_as_one_thread():
    def pixels(_=None):
        return render(plots.curves(epochs(2), STEPS, "digits", best=2))

    alone = pixels()
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(alone, drawn) for drawn in pool.map(pixels, range(4)))


def test_pyplot_is_imported_only_for_other_libraries():
    for path in set(Path(plots.__file__).parent.glob("*.py")) - {Path(plots.__file__).with_name("style.py")}:
        names = [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if "Import" in type(node).__name__]
        assert not any("pyplot" in name or "pylab" in name for name in names)
