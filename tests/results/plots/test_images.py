"""Figures of images and maps: galleries, explanations, heat, attention, and how faithful the maps are."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axis import Axis

from pipeline.results import plots
from tests.results.plots.drawings import explained, pictures, removal, render, texts, title


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


def test_the_faithfulness_figure_names_a_control_that_does_better():
    figure = plots.faithfulness(removal(), {"gradcam": 0.01, "random map": 0.02}, "digits")
    assert "random map is the most faithful" in title(figure)


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
