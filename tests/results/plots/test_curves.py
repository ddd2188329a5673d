"""Curves of one training and of several: splits, the best epoch, the rate, and the loss of each update."""

import numpy as np
import pandas as pd
import pytest

from pipeline.results import plots
from tests.results.plots.drawings import STEPS, beside, epochs, lines, render, title


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


def test_curves_of_several_arms_have_one_line_per_run_and_split():
    figure = plots.curves_beside(beside("x"), "digits")
    for axes, quantity in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        assert [line.get_linestyle() for line in drawn] == ["-", ":", "-", ":"]
        assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()
        assert drawn[0].get_ydata().tolist() == epochs(2)[f"valid/{quantity}"].tolist()
        assert drawn[3].get_ydata().tolist() == epochs(3)[f"train/{quantity}"].tolist()
    render(figure)
