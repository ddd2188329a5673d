import copy
import math

import numpy as np
import pytest
import torch

from pipeline.data.batches import TrainBatches
from pipeline.training import optimizers, range_test
from pipeline.training.range_test import Curve, climb, smooth, suggest
from tests.small import network, plain, squares

LADDER = {"lr_min": 1e-4, "lr_max": 100.0, "num_steps": 60, "precision": "fp32", "label_smoothing": 0.0}


def sgd(model):
    return optimizers.build("sgd", model, lr=0.1, momentum=0.85, weight_decay=0.0)


def batches(seed=0):
    return TrainBatches(squares(64), 16, torch.device("cpu"), seed=seed, augment=plain)


def random_labels(images, labels, place, generator):
    return plain(images, torch.randint(4, labels.shape, generator=generator), place, generator)


def shaped(loss_of, num_steps=100, lr_min=1e-5, lr_max=10.0):
    """The curve of a ladder whose loss is a function of log10(lr)."""
    lr = lr_min * (lr_max / lr_min) ** (np.arange(num_steps) / (num_steps - 1))
    loss = np.array([loss_of(x) for x in np.log10(lr)])
    return Curve(lr, loss, smooth(loss))


def bowl(low, bottom):
    """Flat up to 10^low, falling straight to 10^bottom, then rising."""

    def loss(x):
        if x < low:
            return 2.3
        return 2.3 - 1.5 * (x - low) / (bottom - low) if x < bottom else 0.8 + 3 * (x - bottom)

    return loss


def test_model_buffers_and_random_state_stay_as_they_were_to_the_bit():
    model = network()
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    climb(model, sgd, batches(), **LADDER)
    assert model.state_dict().keys() == before.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_stops_where_the_loss_diverges_and_keeps_finite_losses_alone():
    hopeless = TrainBatches(squares(64), 16, torch.device("cpu"), seed=0, augment=random_labels)
    curve = climb(network(), sgd, hopeless, **{**LADDER, "lr_max": 1e6})
    assert 10 < len(curve.lr) < 60
    assert np.isfinite(curve.loss).all()
    assert len(curve.lr) == len(curve.loss) == len(curve.smoothed)


def test_the_ladder_reaches_its_end_when_nothing_diverges():
    curve = climb(network(), sgd, batches(), **{**LADDER, "lr_max": 1e-3})
    assert curve.lr[[0, -1]] == pytest.approx([1e-4, 1e-3])
    assert len(curve.lr) == 60


def test_the_suggested_rate_trains_a_model():
    suggestion = suggest([climb(network(seed), sgd, batches(seed), **LADDER) for seed in range(3)])
    assert suggestion.lr is not None
    from tests.training.test_loop import train

    assert list(train(epochs=6, max_lr=suggestion.lr)[1])[-1].train_accuracy > 0.9


def test_the_rules_find_their_places_on_a_known_curve():
    suggestion = suggest([shaped(bowl(-3, -1))])
    # The running mean lags by half a decade.
    assert 1e-2 < suggestion.rates["minimum/10"] < 10**-1.5
    assert 1e-3 < suggestion.rates["steepest"] < 10**-0.5
    assert 1e-2 < suggestion.rates["valley"] < 10**-1.5
    assert suggestion.lr == suggestion.rates[range_test.CHOSEN_RULE]


def test_a_lone_slope_is_found_where_it_is_in_log_lr_not_at_small_rates():
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
def test_no_suggestion_says_why(curves, reason):
    suggestion = suggest(curves)
    assert suggestion.lr is None
    assert reason in suggestion.reason
    assert set(suggestion.rates.values()) == {None}


def test_one_odd_repeat_of_three_does_not_forbid_a_suggestion():
    good = shaped(bowl(-3, -1))
    assert suggest([good, good, shaped(lambda x: 2.3)]).lr is not None
    assert suggest([good, shaped(lambda x: 2.3)]).lr is None
