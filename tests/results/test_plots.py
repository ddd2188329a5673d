"""Figures show the right values, and survive any text of a user."""

import ast
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis
from PIL import Image

from pipeline.results import dependence, metrics, plots
from pipeline.results.plots import style

HOSTILE = ["$x_{", "a$b$c", "ünï", "_", "x" * 200, "tab\there\nline", "$$", "猫", "a\\$b$", ""]


def render(figure):
    """The figure's pixels (H, W, 4); any warning while drawing is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer := io.BytesIO(), format="png")
    return np.asarray(Image.open(buffer))


def texts(figure):
    drawn = [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]]
    return [*drawn, *(text.get_text() for text in figure.texts), figure.get_suptitle()]


def title(figure):
    return figure.get_suptitle().replace("\n", " ")


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def pictures(count, height=8, width=6):
    return np.random.default_rng(0).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def epochs(count, valid=True):
    table = {"epoch": range(1, count + 1), "train/loss": np.linspace(2, 1, count), "train/accuracy": [0.5] * count}
    if valid:
        table |= {"valid/loss": np.linspace(2, 1.5, count), "valid/accuracy": [0.75] * count}
    return pd.DataFrame(table)


STEPS = pd.DataFrame({"step": range(8), "epoch": np.arange(1, 9) / 4, "lr": np.linspace(0, 1, 8), "loss": [2.0] * 8})


def precisions(names):
    curve = {"precision": [0.5, 1.0], "recall": [1.0, 0.4]}
    return pd.concat(pd.DataFrame({"class": name, **curve}) for name in names)


def test_precision_recall_names_the_lowest_classes_and_draws_all():
    values = {f"class {i}": i / 10 for i in range(10)}
    figure = plots.precision_recall(precisions(values), values, "digits")
    render(figure)
    assert title(figure) == "digits: mean average precision 0.4500 of 10 classes"
    (axes,) = figure.axes
    named = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert named == [f"{i / 10:.3f} class {i}" for i in range(6)]
    assert len(axes.lines) == 10


def test_precision_recall_accepts_any_class_names():
    values = dict.fromkeys(HOSTILE, 0.5)
    figure = plots.precision_recall(precisions(values), values, "$x_{")
    assert render(figure).std() > 10
    assert len(figure.legends[0].get_texts()) == 6


@pytest.mark.parametrize("count", [1, 2])
def test_curves_show_train_valid_and_the_rate(count):
    figure = plots.curves(epochs(count), STEPS, "digits", best=1)
    loss, accuracy, rate = figure.axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for split in ("train", "valid"):
            assert lines(axes)[split].get_xdata().tolist() == list(range(1, count + 1))
            assert lines(axes)[split].get_ydata().tolist() == epochs(count)[f"{split}/{quantity}"].tolist()
    assert rate.lines[0].get_xdata().tolist() == STEPS["epoch"].tolist()
    assert rate.lines[0].get_ydata().tolist() == STEPS["lr"].tolist()
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy (nats)", "accuracy", "learning rate"]
    assert rate.get_xlabel() == "epoch"
    render(figure)


def test_curves_mark_the_best_epoch():
    higher = epochs(3).assign(**{"valid/accuracy": [0.7, 0.8, 0.75]})
    figure = plots.curves(higher, STEPS, "digits", best=2)
    assert title(figure) == "digits: 80.00% valid accuracy at epoch 2"
    star = lines(figure.axes[1])["best epoch"]
    assert (star.get_xdata().tolist(), star.get_ydata().tolist()) == ([2], [0.8])


@pytest.mark.parametrize(
    "table", [epochs(2, valid=False), epochs(2).assign(**{"valid/loss": None, "valid/accuracy": None})]
)
def test_curves_without_validation_show_only_training(table):
    figure = plots.curves(table, STEPS, "digits", best=2)
    assert not {"valid", "best epoch"} & {label for axes in figure.axes for label in lines(axes)}
    assert title(figure) == "digits: 50.00% train accuracy at epoch 2"
    render(figure)


def test_the_loss_of_each_update_is_smoothed_over_a_hundredth_of_the_training():
    steps = pd.DataFrame({"epoch": np.arange(400) / 400, "lr": 0.1, "loss": np.tile([1.0, 3.0], 200)})
    figure = plots.curves(epochs(1), steps, "digits", best=1)
    smoothed = figure.axes[0].lines[0].get_ydata()
    assert len(smoothed) == 400
    assert np.all(smoothed[3:] == 2)


def ladder(repeat=0, num_rates=30):
    fall = 2 - np.linspace(0, 1, num_rates)
    lr = np.geomspace(1e-4, 1, num_rates)
    return pd.DataFrame({"repeat": repeat, "lr": lr, "loss": fall + 0.1, "smoothed": fall})


RATES = {"valley": 1e-3, "steepest": 1e-2, "minimum/10": 1e-1}


def test_lr_range_marks_every_rule_and_highlights_the_suggestion():
    figure = plots.lr_range(ladder(), RATES, "steepest", 1e-2, "digits")
    (axes,) = figure.axes
    marked = {label: line for label, line in lines(axes).items() if ":" in label}
    rates = {label: line.get_xdata()[0] for label, line in marked.items()}
    assert rates == {"valley: 1.00e-03": 1e-3, "steepest: 1.00e-02 (suggested)": 1e-2, "minimum/10: 1.00e-01": 1e-1}
    assert max(marked.values(), key=lambda line: line.get_linewidth()).get_xdata()[0] == 1e-2
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "learning rate", "cross-entropy (nats)")
    assert title(figure) == "digits: 1.00e-02 suggested"
    render(figure)


def test_lr_range_shows_each_repeat_faint_and_its_smoothed_curve_strong():
    table = pd.concat([ladder(0), ladder(1)])
    (axes,) = plots.lr_range(table, {}, None, None, "digits").axes
    assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([2.1, 2.0, 2.1, 2.0])
    assert [line.get_alpha() for line in axes.lines] == [0.2, None, 0.2, None]


def test_lr_range_hides_divergence_and_shows_the_whole_fall_of_the_loss():
    table = ladder()
    table.loc[29, ["loss", "smoothed"]] = 1e6
    low, high = plots.lr_range(table, RATES, "steepest", 1e-2, "digits").axes[0].get_ylim()
    assert low < table["loss"].min()
    assert table["loss"].iloc[0] < high < 4


CYCLES = pd.DataFrame(
    {"lr": [0.05, 0.2, 0.8], "loss": [1.5, 1.0, np.inf], "accuracy": [0.3, 0.5, np.nan], "first_loss": 2.4}
)
COURSE = pd.DataFrame({"peak": np.repeat(CYCLES["lr"], 10), "update": [*range(10)] * 3, "loss": 2.0})
COURSE.loc[COURSE["peak"] == 0.8, "loss"] = 1e9


def test_short_cycles_show_their_ends_their_course_and_the_suggestion():
    figure = plots.short_cycles(CYCLES, COURSE, {"lr": 0.3, "low": 0.2, "high": 0.4}, "digits")
    ends, course, accuracy = figure.axes
    marked = lines(ends)
    assert marked["suggested: 3.00e-01"].get_xdata()[0] == 0.3
    assert list(marked["loss"].get_xdata()) == [0.05, 0.2, 0.8]
    assert max(marked["loss"].get_ydata()) < 4  # a cycle that diverged does not hide the others
    assert [label.get_text() for label in ends.get_xticklabels()] == ["5.00e-02", "2.00e-01", "8.00e-01"]
    assert list(lines(course)) == ["5.00e-02", "2.00e-01", "8.00e-01"]
    assert list(lines(accuracy)["accuracy"].get_ydata())[:2] == [0.3, 0.5]
    assert title(figure) == "digits: 3.00e-01 suggested"
    render(figure)


def test_short_cycles_without_suggestion_or_validation_say_why():
    without = CYCLES.assign(accuracy=np.nan, loss=np.inf)
    figure = plots.short_cycles(without, COURSE.head(0), dict.fromkeys(["lr", "low", "high"]), "digits", "all diverged")
    assert title(figure) == "digits: no suggestion, all diverged"
    assert len(figure.axes) == 2
    render(figure)


@pytest.mark.parametrize("first", [np.inf, np.nan])
def test_short_cycles_whose_first_loss_is_no_number_are_drawn(first):
    diverged = CYCLES.assign(accuracy=np.nan, loss=np.inf, first_loss=first)
    course = COURSE.groupby("peak").head(1).assign(loss=first)
    figure = plots.short_cycles(diverged, course, dict.fromkeys(["lr", "low", "high"]), "digits", "all diverged")
    assert title(figure) == "digits: no suggestion, all diverged"
    render(figure)


@pytest.mark.parametrize("table", [ladder(), ladder().head(1), ladder().head(0)])
def test_lr_range_without_suggestion_says_why(table):
    figure = plots.lr_range(table, dict.fromkeys(RATES), None, None, "digits", "the loss never fell")
    assert title(figure) == "digits: no suggestion, the loss never fell"
    assert not any(":" in label for label in lines(figure.axes[0]))
    render(figure)


@pytest.mark.parametrize("normalised", [False, True])
def test_confusion_shows_counts_or_shares_with_true_classes_as_rows(normalised):
    matrix = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 2]])
    figure = plots.confusion_matrix(matrix, ["a", "b", "c"], normalised)
    axes = figure.axes[0]
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    values = ["0.75", "0.25", "0.50", "0.50"] if normalised else ["3", "1", "2", "2"]
    assert cells == dict(zip([(0, 0), (0, 1), (2, 1), (2, 2)], values, strict=True))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b", "c"]
    assert title(figure) == "5 of 8 images correct (62.50%)"
    render(figure)


def test_only_an_exact_share_is_shown_as_0_or_1():
    figure = plots.confusion_matrix(np.array([[996, 4], [0, 1000]]), ["a", "b"], normalised=True)
    assert [text.get_text() for text in figure.axes[0].texts] == [">.99", "<.01", "1.00"]


def test_a_class_without_images_is_blank_only_in_the_normalised_matrix():
    matrix = np.array([[3, 1], [0, 0]])
    shares, counts = (
        plots.confusion_matrix(matrix, ["a", "b"], n).axes[0].images[0].get_array() for n in (True, False)
    )
    assert np.ma.getmaskarray(shares).tolist() == [[False, False], [True, True]]
    assert counts.tolist() == [[3, 1], [0, 0]]


def test_a_hundred_classes_are_thinned_and_unnumbered():
    names = [f"class {i}" for i in range(100)]
    figure = plots.confusion_matrix(np.eye(100, dtype=int), names, normalised=False)
    axes = figure.axes[0]
    assert len(axes.texts) == 0
    shown = {int(tick): label.get_text() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert 20 <= len(shown) <= 40
    assert all(name == names[tick] for tick, name in shown.items())
    twenty = plots.confusion_matrix(np.eye(20, dtype=int), names[:20], normalised=False)
    assert len(twenty.axes[0].texts) == 20
    assert twenty.get_figwidth() < figure.get_figwidth() * 1.01
    render(figure)


def test_reliability_shows_accuracy_gap_and_counts_and_survives_empty_bins():
    ece, bins = metrics.calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), num_bins=10)
    figure = plots.reliability(bins, ece, "digits")
    diagram, histogram = figure.axes
    accuracy, gap = diagram.containers
    # 0.8 is wrong: accuracy 0 in (0.7, 0.8]; 0.9 is right: accuracy 1 in (0.8, 0.9].
    assert [bar.get_height() for bar in accuracy][7:9] == [0, 1]
    assert [bar.get_y() + bar.get_height() for bar in gap][7:9] == pytest.approx([0.8, 0.9])
    assert [bar.get_height() for bar in histogram.patches] == bins["count"].tolist()
    assert [text.get_text() for text in histogram.texts] == ["", "", "", "", "", "", "", "1", "1", ""]
    assert (diagram.get_ylabel(), histogram.get_ylabel(), histogram.get_xlabel()) == (
        "accuracy",
        "images",
        "confidence",
    )
    assert title(figure) == "digits: calibration error (ECE) 0.4500, overconfident"
    render(figure)


RISKS = pd.DataFrame({"coverage": [0.5, 1], "error": [0.1, 0.3], "error_low": [0, 0.1], "error_high": [0.3, 0.6]})


def test_errors_over_coverage_show_the_interval_and_the_threshold_with_and_without_one():
    figure = plots.risk_coverage(RISKS, (0.5, 0.1), 0.02, "digits")
    render(figure)
    (axes,) = figure.axes
    line, wanted, chosen = axes.lines
    assert line.get_xdata().tolist() == [50, 100] and line.get_ydata().tolist() == pytest.approx([10, 30])
    assert (chosen.get_xdata(), chosen.get_ydata()) == ([50], [10])
    assert set(wanted.get_ydata()) == {2}
    assert len(plots.risk_coverage(RISKS, None, None, "digits").axes[0].lines) == 1


def test_reliability_names_underconfidence_and_perfect_calibration():
    sure, unsure = (np.array([[p, 1 - p]] * 2) for p in (1.0, 0.6))
    for probabilities, ending in ((sure, "0.0000"), (unsure, "0.4000, underconfident")):
        ece, bins = metrics.calibration(np.array([0, 0]), probabilities)
        assert title(plots.reliability(bins, ece, "digits")).endswith(ending)


@pytest.mark.parametrize("count", [1, 3, 64])
def test_gallery_shows_images_upright_and_unchanged(count):
    images, captions = pictures(count), [f"cat → dog 0.{i:02}" for i in range(count)]
    figure = plots.gallery(images, captions, f"{count} misclassified")
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == captions
    for image, axes in zip(images, shown, strict=True):
        assert np.array_equal(axes.images[0].get_array(), image.transpose(1, 2, 0))
        assert axes.images[0].origin == "upper"
        assert axes.images[0].get_interpolation() == "nearest"
        assert axes.yaxis_inverted()
    render(figure)


def test_pairs_of_images_fill_their_cells():
    figure = plots.gallery(pictures(12, height=32, width=66), ["a | b"] * 12, "pairs")
    drawn = render(figure)
    assert (drawn[..., :3] < 250).any(axis=-1).mean() > 0.6


def test_the_top_left_pixel_is_drawn_at_the_top_left():
    image = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    image[0, 0, 0, 0] = 255
    drawn = render(plots.gallery(image, ["red corner"], "digits"))[..., :3].astype(int)
    red = np.argwhere((drawn == [255, 0, 0]).all(axis=-1))
    black = np.argwhere((drawn == 0).all(axis=-1) & (np.arange(len(drawn)) > red[:, 0].min())[:, None])
    assert len(red) > 20
    assert red.mean(axis=0)[0] < black.mean(axis=0)[0]
    assert red.mean(axis=0)[1] < black.mean(axis=0)[1]


def test_an_empty_gallery_says_that_it_has_no_images():
    figure = plots.gallery(pictures(0), [], "0 misclassified, most confident first")
    assert not figure.axes
    assert "no misclassified images" in texts(figure)
    render(figure)


def explained(maps, count=2):
    panels = [("for the predicted class", maps), ("for the true class", np.ones_like(maps))]
    return plots.explanations(pictures(count), panels, [f"true {i}\npredicted x 0.9" for i in range(count)], "digits")


@pytest.mark.parametrize(
    "make", [lambda: plots.gallery(pictures(3), ["cat"] * 3, "digits"), lambda: explained(np.ones((2, 8, 6)))]
)
def test_no_ticks_are_computed_for_axes_that_show_none(make, monkeypatch):
    computed = []
    update = Axis._update_ticks
    monkeypatch.setattr(Axis, "_update_ticks", lambda axis: computed.append(axis) or update(axis))
    render(make())
    assert not [axis for axis in computed if not axis.axes.axison]


def test_explanations_lay_each_map_over_its_image():
    maps = np.random.default_rng(1).random((2, 8, 6))
    figure = explained(maps)
    grid = np.array(figure.axes[:6]).reshape(2, 3)
    for row, image in enumerate(pictures(2)):
        assert np.array_equal(grid[row, 0].images[0].get_array(), image.transpose(1, 2, 0))
        assert grid[row, 0].get_title() == f"true {row}\npredicted x 0.9"
        picture, heat = grid[row, 1].images
        assert np.array_equal(heat.get_array(), maps[row])
        assert heat.get_clim() == (0, 1)
        grey = picture.get_array()
        assert np.all(grey == grey[..., :1])
        assert np.corrcoef(grey[..., 0].ravel(), image.mean(axis=0).ravel())[0, 1] > 0.99
    assert [axes.get_title() for axes in grid[0, 1:]] == ["for the predicted class", "for the true class"]
    assert [axes.get_title() for axes in grid[1, 1:]] == ["", ""]
    assert figure.axes[6].get_ylabel() == "relevance within the image"
    render(figure)


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 1), (8, 2), (16, 3)])
def test_explanations_fit_a_screen(count, across):
    figure = explained(np.random.default_rng(1).random((count, 8, 6)), count)
    shape = figure.axes[0].get_subplotspec().get_gridspec()
    assert (shape.nrows, shape.ncols) == (-(-count // across), 4 * across - 1)
    width, height = figure.get_size_inches()
    assert count < 2 or 1.4 < width / height < 1.6
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title.startswith("true")] == [
        f"true {i}\npredicted x 0.9" for i in range(count)
    ]
    assert titles.count("for the true class") == min(across, count)
    assert sum(len(axes.images) == 2 for axes in figure.axes) == 2 * count


def test_heat_never_hides_the_image_and_is_transparent_at_zero():
    opacity = explained(np.ones((2, 8, 6))).axes[1].images[1].get_cmap()(np.linspace(0, 1, 11))[:, 3]
    assert opacity[0] == 0
    assert np.all(np.diff(opacity) > 0)
    assert opacity[-1] < 0.9


@pytest.mark.parametrize("blank", [[True, False], [True, True]])
def test_a_blank_map_has_a_remark_and_is_not_drawn(blank):
    maps = np.zeros((2, 8, 6))
    maps[~np.array(blank), 2, 3] = 1
    figure = explained(maps)
    grid = np.array(figure.axes[:6]).reshape(2, 3)
    assert [len(axes.images) for axes in grid[:, 1]] == [1 if each else 2 for each in blank]
    remarks = [[text.get_text() for text in axes.texts] for axes in grid[:, 1]]
    assert remarks == [["nothing\nstands out"] if each else [] for each in blank]
    render(figure)


def test_attention_matrices_have_the_same_colour_scale():
    matrices = np.random.default_rng(0).random((2, 4, 8, 8))
    figure = plots.attention_matrices(pictures(2), matrices, ["a", "b"], "digits")
    grid = np.array(figure.axes[:10]).reshape(2, 5)
    for row in range(2):
        assert np.array_equal(grid[row, 0].images[0].get_array(), pictures(2)[row].transpose(1, 2, 0))
        for block in range(4):
            (picture,) = grid[row, 1 + block].images
            assert np.array_equal(picture.get_array(), matrices[row, block])
            assert picture.get_clim() == (0, matrices.max())
    assert [axes.get_title() for axes in grid[0]] == ["a", "block 1", "block 2", "block 3", "block 4"]
    render(figure)


def removal(sources=("gradcam", "random map")):
    return pd.DataFrame(
        {"source": source, "order": order, "fraction": fraction, "confidence": 1 - fraction * step}
        for source in sources
        for order, step in (("most relevant first", 1), ("least relevant first", 0.5))
        for fraction in (0, 0.4, 0.8)
    )


def test_faithfulness_draws_both_orders_of_every_source():
    figure = plots.faithfulness(removal(), {"gradcam": 0.3, "random map": -0.01}, "digits")
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    assert [line.get_linestyle() for line in drawn] == ["-", "--", "-", "--"]
    assert drawn[0].get_xdata() == pytest.approx([0, 40, 80])
    assert drawn[0].get_ydata() == pytest.approx([1, 0.6, 0.2])
    assert drawn[1].get_ydata() == pytest.approx([1, 0.8, 0.6])
    assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["most relevant first", "least relevant first", "gradcam: +0.300", "random map: -0.010"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("pixels removed (%)", "mean confidence in the predicted class")
    assert title(figure) == "digits: gradcam is the most faithful (+0.300)"
    render(figure)


def test_randomisation_draws_how_alike_the_maps_stay_part_by_part():
    table = pd.DataFrame({"part": ["head", "layer1"], "similarity": [0.8, 0.1], "standard_error": [0.05, 0.02]})
    figure = plots.randomisation(table, "digits")
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata() == pytest.approx([0.8, 0.1])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["head", "layer1"]
    assert title(figure) == "digits: map similarity with random weights: +0.10"
    render(figure)


def sliced(*names):
    table = pd.DataFrame(
        {"column": "camera", "value": names, "images": 20, "accuracy": np.linspace(0.4, 0.9, len(names))}
    )
    return table.assign(low=table["accuracy"] - 0.1, high=table["accuracy"] + 0.1, below=table["accuracy"] < 0.6)


def test_slices_are_drawn_from_the_worst_down_with_their_intervals():
    figure = plots.slices(sliced("A", "B"), 0.75)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["camera A (20)", "camera B (20)"]
    assert axes.yaxis_inverted()
    points = {float(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"}
    assert points == {0: 0.4, 1: 0.9}
    assert title(figure) == "Accuracy of 2 slices: 1 below that of all images"
    assert title(plots.slices(sliced(*map(str, range(50))), 0.75)).startswith("Accuracy of the worst 30 of 50 slices")
    render(figure)


def test_the_faithfulness_figure_names_a_control_that_does_better():
    figure = plots.faithfulness(removal(), {"gradcam": 0.01, "random map": 0.02}, "digits")
    assert "random map is the most faithful" in title(figure)


def beside(name):
    """Epochs of two arms, the second without validation."""
    return pd.concat([epochs(2).assign(arm=f"A: {name}", run="1"), epochs(3, valid=False).assign(arm="B", run="2")])


def test_curves_of_several_arms_have_one_line_per_run_and_split():
    figure = plots.curves_beside(beside("x"), "digits")
    for axes, quantity in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        assert [line.get_linestyle() for line in drawn] == ["-", ":", "-", ":"]
        assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()
        assert drawn[0].get_ydata().tolist() == epochs(2)[f"valid/{quantity}"].tolist()
        assert drawn[3].get_ydata().tolist() == epochs(3)[f"train/{quantity}"].tolist()
    render(figure)


def test_calibrations_are_drawn_in_one_plot_without_empty_bins():
    ece, bins = metrics.calibration(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), num_bins=10)
    figure = plots.calibrations({"A": bins, "B": bins.assign(accuracy=1.0)}, f"Calibration: A {ece:.4f}")
    drawn = lines(figure.axes[0])
    assert drawn["A"].get_xdata().tolist() == pytest.approx([0.8, 0.9])
    assert drawn["A"].get_ydata().tolist() == [0, 1]
    assert drawn["B"].get_ydata().tolist() == [1, 1]
    render(figure)


def test_a_watched_image_is_above_its_map():
    images, maps = pictures(3, 8, 8), np.zeros((3, 8, 8))
    maps[1, 0, 0] = 1
    sheet = plots.watched(images, maps)
    block = 96 // 8
    assert sheet.shape == (2 * (96 + 2), 3 * (96 + 2), 3)
    assert np.array_equal(sheet[: 8 * block : block, 98 : 98 + 8 * block : block], images[1].transpose(1, 2, 0))
    below = sheet[98 : 98 + 8 * block : block, 98 : 98 + 8 * block : block].astype(int)
    coloured = np.argwhere(np.ptp(below, axis=2) > 0)
    assert coloured.tolist() == [[0, 0]]


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


@pytest.mark.parametrize("is_hit", [True, False])
def test_shares_of_groups_that_are_all_hits_or_none_are_drawn(is_hit):
    draw = np.random.default_rng(0)
    groups = [np.repeat([0, 1, 2, 3], draw.integers(1, 9, 4)) for _ in range(20)]
    shares = [dependence.share(np.full(len(each), is_hit), each) for each in groups]
    ends = {"coverage_low": [each.low for each in shares], "coverage_high": [each.high for each in shares]}
    table = pd.DataFrame({"class": [*map(str, range(20))], "coverage": float(is_hit), **ends})
    render(plots.prediction_sets(table, 0.9))
