import io
import warnings

import numpy as np
import pandas as pd
import pytest

from pipeline import metrics, plots

HOSTILE = ["$x_{", "a$b$c", "ünï", "_", "x" * 200, "tab\there", "$$"]


def render(figure):
    """The figure's PNG, drawn as strictly as can be."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer := io.BytesIO(), format="png")
    return buffer.getvalue()


def texts(figure):
    drawn = [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]]
    return [*drawn, figure.get_suptitle()]


def pictures(count, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def epochs(count, valid=True):
    table = {"epoch": range(1, count + 1), "train/loss": np.linspace(2, 1, count), "train/accuracy": [0.5] * count}
    if valid:
        table |= {"valid/loss": np.linspace(2, 1.5, count), "valid/accuracy": [0.75] * count}
    return pd.DataFrame(table)


STEPS = pd.DataFrame({"step": range(8), "epoch": np.arange(1, 9) / 4, "lr": np.linspace(0, 1, 8), "loss": [2.0] * 8})


@pytest.mark.parametrize("count", [1, 2])
def test_curves_show_train_valid_and_the_rate(count):
    figure = plots.curves(epochs(count), STEPS, "title")
    loss, accuracy, rate = figure.axes
    lines = {line.get_label(): line.get_ydata().tolist() for line in loss.lines}
    assert lines["train"] == epochs(count)["train/loss"].tolist()
    assert lines["valid"] == epochs(count)["valid/loss"].tolist()
    assert rate.lines[0].get_ydata().tolist() == STEPS["lr"].tolist()
    # Accuracies tie: the lower loss decides.
    assert f"best: 75.00% at epoch {count}" in [line.get_label() for line in accuracy.lines]
    assert rate.get_xlabel() == "epoch"
    render(figure)


def test_curves_without_validation_show_none():
    figure = plots.curves(epochs(2, valid=False), STEPS, "title")
    assert not any(line.get_label() in ("valid", "best") for axes in figure.axes for line in axes.lines)
    render(figure)


def ladder():
    lr = np.geomspace(1e-4, 1, 30)
    return pd.DataFrame(
        {"repeat": 0, "lr": lr, "loss": 2 - np.linspace(0, 1, 30), "smoothed": 2 - np.linspace(0, 1, 30)}
    )


def test_lr_range_marks_every_rule_and_the_suggestion():
    rates = {"valley": 1e-3, "steepest": 1e-2, "minimum/10": 1e-1}
    figure = plots.lr_range(ladder(), rates, "steepest", 1e-2, "test")
    (axes,) = figure.axes
    labels = {line.get_label(): line.get_xdata()[0] for line in axes.lines if ":" in line.get_label()}
    assert labels == {"valley: 1.00e-03": 1e-3, "steepest: 1.00e-02 (suggested)": 1e-2, "minimum/10: 1.00e-01": 1e-1}
    assert axes.get_xscale() == "log"
    assert "1.00e-02 suggested" in axes.get_title()
    render(figure)


@pytest.mark.parametrize("table", [ladder(), ladder().head(0)])
def test_lr_range_without_suggestion_says_why(table):
    rates = dict.fromkeys(["valley", "steepest", "minimum/10"])
    figure = plots.lr_range(table, rates, None, None, "test", "the loss never fell")
    assert "no suggestion\nthe loss never fell" in figure.axes[0].get_title()
    render(figure)


@pytest.mark.parametrize("normalised", [False, True])
def test_confusion_shows_counts_or_shares_and_leaves_an_absent_class_blank(normalised):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    figure = plots.confusion_matrix(matrix, ["a", "b", "c"], normalised)
    axes = figure.axes[0]
    expected = ["0.75", "0.25", "0.50", "0.50"] if normalised else ["3", "1", "2", "2"]
    assert [text.get_text() for text in axes.texts] == expected
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    render(figure)


def test_a_hundred_classes_are_thinned_and_unnumbered():
    names = [f"class {i}" for i in range(100)]
    figure = plots.confusion_matrix(np.eye(100, dtype=int), names, normalised=False)
    assert len(figure.axes[0].texts) == 0
    assert len(figure.axes[0].get_xticks()) <= 40
    render(figure)


def test_class_names_are_text_and_never_formulas():
    count = len(HOSTILE)
    render(plots.confusion_matrix(np.ones((count, count), dtype=int), HOSTILE, normalised=False))
    render(plots.gallery(pictures(count), [f"{name} → {name} 0.98" for name in HOSTILE], "title"))
    maps = np.ones((count, 8, 8))
    render(plots.explanations(pictures(count), [("map", maps)], [f"true {name}" for name in HOSTILE], "title"))


def test_reliability_shows_accuracy_and_counts_and_survives_empty_bins():
    ece, bins = metrics.calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]))
    figure = plots.reliability(bins, ece, "title")
    counts = [patch.get_height() for patch in figure.axes[1].patches]
    assert counts == bins["count"].tolist()
    assert f"ECE {ece:.4f}" in figure.axes[0].get_title()
    render(figure)


def test_gallery_shows_images_upright_and_as_they_are():
    images = pictures(2)
    figure = plots.gallery(images, ["cat → dog 0.98", "emu → cat 0.55"], "2 misclassified")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(shown) == 2
    for image, array in zip(images, shown, strict=True):
        assert np.array_equal(array, image.transpose(1, 2, 0))
    assert "cat → dog 0.98" in texts(figure)
    render(figure)


def test_an_empty_gallery_says_so_in_its_title():
    figure = plots.gallery(pictures(0), [], "no misclassified images")
    assert not any(axes.images for axes in figure.axes)
    assert figure.get_suptitle() == "no misclassified images"
    render(figure)


def test_a_blank_map_is_said_to_be_so_and_not_painted():
    maps = np.zeros((2, 8, 8))
    maps[0, 2, 3] = 1
    figure = plots.explanations(pictures(2), [("for the predicted class", maps)], ["a\nb", "c\nd"], "title")
    panels = [axes for axes in figure.axes if axes.images]
    overlaid = [len(axes.images) for axes in panels]
    assert overlaid[:4] == [1, 2, 1, 1]
    assert texts(figure).count("no positive\nevidence") == 1
    heat = panels[1].images[1]
    assert np.array_equal(heat.get_array(), maps[0])
    assert heat.get_clim() == (0, 1)
    render(figure)


def test_attention_matrices_share_one_scale():
    matrices = np.random.default_rng(0).random((2, 4, 8, 8))
    figure = plots.attention_matrices(pictures(2), matrices, ["a", "b"], "title")
    limits = {
        axes.images[0].get_clim() for axes in figure.axes if axes.images and axes.images[0].get_array().shape == (8, 8)
    }
    assert limits == {(0, matrices.max())}
    render(figure)


def test_faithfulness_draws_both_orders_of_every_source():
    rows = [
        {"source": source, "order": order, "fraction": fraction, "confidence": 1 - fraction}
        for source in ("gradcam", "random map")
        for order in ("most relevant first", "least relevant first")
        for fraction in (0, 0.4, 0.8)
    ]
    figure = plots.faithfulness(pd.DataFrame(rows), {"gradcam": 0.3, "random map": 0.0}, "title")
    assert len(figure.axes[0].lines) == 4
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["gradcam: 0.300", "random map: 0.000"]
    render(figure)


def test_drawing_leaves_matplotlib_s_settings_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.gallery(pictures(1), ["a"], "title")
    assert dict(mpl.rcParams) == before
