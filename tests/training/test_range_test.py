"""The range test on ladders: where it stops, what it suggests, and why it suggests nothing."""

import math

import numpy as np
import pytest
import torch

from benchmarks.synthetic import splits
from pipeline.data.batches import TrainBatches
from pipeline.params import LadderParams, TrainParams
from pipeline.training import optimizers, range_test, schedules
from pipeline.training.range_test import Curve, climb, smooth, suggest
from pipeline.training.recipe import Recipe
from pipeline.training.training import Training
from tests.small import network, plain, squares

SMALL = {"model": "resnet9", "width": 4, "batch_size": 16, "optimizer": "sgd", "epochs": 2}


def batches(seed=0):
    return TrainBatches(squares(64), 16, torch.device("cpu"), seed=seed, augment=plain)


def climbing(model, num_steps=60, max_lr=100.0, train_batches=None, frozen=None):
    """A ladder for `model`, ready to climb."""
    train_batches = train_batches or batches()
    optimizer = optimizers.build("sgd", model, lr=0.1, momentum=0.85, weight_decay=0.0)
    schedule = schedules.ladder(optimizer, min_lr=1e-4, max_lr=max_lr, num_steps=num_steps)
    epochs = math.ceil(num_steps / len(train_batches))
    return Training(model, train_batches, optimizer, schedule, epochs=epochs, precision="fp32", frozen=frozen)


def random_labels(images, labels, place, generator):
    return plain(images, torch.randint(4, labels.shape, generator=generator), place, generator)


def shaped(loss_of, num_steps=100, min_lr=1e-5, max_lr=10.0):
    """The curve of a ladder whose loss is a function of log10(lr)."""
    lr = min_lr * (max_lr / min_lr) ** (np.arange(num_steps) / (num_steps - 1))
    loss = np.array([loss_of(x) for x in np.log10(lr)])
    return Curve(lr, loss, smooth(loss))


def bowl(low, bottom):
    """Flat up to 10^low, then falling straight to 10^bottom, then rising."""

    def loss(x):
        if x < low:
            return 2.3
        return 2.3 - 1.5 * (x - low) / (bottom - low) if x < bottom else 0.8 + 3 * (x - bottom)

    return loss


def test_a_range_test_changes_neither_the_random_state_nor_the_training_after_it():
    recipe = Recipe(TrainParams(**SMALL), splits(64), torch.device("cpu"), "fp32")
    weights = []
    for is_climbed in (False, True):
        random_state = torch.get_rng_state()
        if is_climbed:
            assert len(climb(range_test.training(recipe, LadderParams(ladder_steps=20), 0), 20).lr)
        assert torch.equal(torch.get_rng_state(), random_state)
        training = recipe.one_cycle(0.01)
        list(training.events())
        weights.append(training.weights["last"])
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


def test_a_ladder_stops_where_the_loss_diverges_and_keeps_only_finite_losses():
    hopeless = TrainBatches(squares(64), 16, torch.device("cpu"), seed=0, augment=random_labels)
    curve = climb(climbing(network(), max_lr=1e6, train_batches=hopeless), 60)
    assert 10 < len(curve.lr) < 60
    assert np.isfinite(curve.loss).all()
    assert len(curve.lr) == len(curve.loss) == len(curve.smoothed)


def test_the_ladder_reaches_its_end_when_nothing_diverges():
    curve = climb(climbing(network(), max_lr=1e-3), 60)
    assert curve.lr[[0, -1]] == pytest.approx([1e-4, 1e-3])
    assert len(curve.lr) == 60


def test_the_suggested_rate_trains_a_model():
    suggestion = suggest([climb(climbing(network(seed), train_batches=batches(seed)), 60) for seed in range(3)])
    assert suggestion.lr is not None
    from tests.training.test_training import train

    assert list(train(epochs=6, max_lr=suggestion.lr)[1])[-1].train_accuracy > 0.9


def test_the_rules_find_their_places_on_a_known_curve():
    suggestion = suggest([shaped(bowl(-3, -1))])
    # The running mean lags by half a decade.
    assert 1e-2 < suggestion.rates["minimum/10"] < 10**-1.5
    assert 1e-3 < suggestion.rates["steepest"] < 10**-0.5
    assert 1e-2 < suggestion.rates["valley"] < 10**-1.5
    assert suggestion.lr == suggestion.rates[range_test.STEEPEST]


def test_the_steepest_slope_is_found_on_the_logarithmic_axis_of_rates():
    suggestion = suggest([shaped(lambda x: 2.3 - 1.5 / (1 + math.exp(-8 * (x + 2))))])
    assert 1e-2 < suggestion.rates["steepest"] < 10**-1.5


def test_smoothing_is_a_debiased_running_mean():
    assert smooth(np.full(30, 2.3)) == pytest.approx(np.full(30, 2.3))
    assert smooth(np.array([3.0, 1.0]))[1] == pytest.approx((0.9 * 3 + 1) / 1.9)
    assert smooth(np.array([])).shape == (0,)


def test_repeats_give_their_median_and_spread():
    curves = [shaped(bowl(-3 + shift, -1 + shift)) for shift in (0, 0.3, 0.6)]
    together = suggest(curves)
    assert together.lr == pytest.approx(suggest([curves[1]]).lr)
    assert together.spread == pytest.approx(10**0.6, rel=0.2)


@pytest.mark.parametrize(
    ("curves", "reason"),
    [
        ([shaped(lambda x: 2.3)], "never fell"),
        ([shaped(lambda x: 2.3 + x)], "never fell"),
        ([Curve(np.geomspace(1, 2, 5), np.ones(5), np.ones(5))], "diverged after 5 updates"),
        ([Curve(np.array([]), np.array([]), np.array([]))], "diverged after 0 updates"),
    ],
)
def test_a_range_test_without_a_suggestion_says_why(curves, reason):
    suggestion = suggest(curves)
    assert suggestion.lr is None
    assert reason in suggestion.reason
    assert set(suggestion.rates.values()) == {None}


def test_one_odd_repeat_of_three_does_not_forbid_a_suggestion():
    good = shaped(bowl(-3, -1))
    assert suggest([good, good, shaped(lambda x: 2.3)]).lr is not None
    assert suggest([good, shaped(lambda x: 2.3)]).lr is None


def test_the_reason_of_several_ladders_is_the_most_frequent_one_or_the_first():
    curves = [shaped(bowl(-4, -1), num_steps=number) for number in (5, 6, 7)]
    assert suggest(curves).reason.startswith("the loss diverged after 5 updates")
    assert suggest([*curves, curves[2]]).reason.startswith("the loss diverged after 7 updates")
