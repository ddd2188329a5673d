"""Short cycles: how long they are, which rates they try, and which rate they suggest."""

import math

import pytest
import torch

from benchmarks.synthetic import splits
from pipeline.params import TrainParams
from pipeline.training import short_cycles
from pipeline.training.recipe import Recipe
from pipeline.training.short_cycles import STEP, Cycle, choose, plan, walk

SMALL = {"model": "resnet9", "width": 4, "batch_size": 16, "optimizer": "sgd", "epochs": 8}


def recipe_of(**changes):
    return Recipe(TrainParams(**{**SMALL, **changes}), splits(160), torch.device("cpu"), "fp32")


def bowl(best, bend=0.3):
    """A function that measures cycles whose loss is a parabola around `best` on a logarithmic axis."""

    def measure(lr):
        return Cycle(lr, 1 + bend * math.log(lr / best, STEP) ** 2, None, 3.0)

    return measure


@pytest.mark.parametrize("epochs", [1, 3, 12, 23, 24, 300])
@pytest.mark.parametrize("per_epoch", [1, 9, 40, 351, 5000])
def test_short_cycles_cost_a_tenth_of_a_long_training_and_at_most_half_of_any(epochs, per_epoch):
    found = plan(epochs, epochs * per_epoch)
    if found is None:
        assert epochs * per_epoch < 24 * (10 if epochs >= 24 else 2)
    else:
        share = found.most_cycles * found.num_updates / (epochs * per_epoch)
        assert share <= (0.1 if epochs >= 24 else 0.5)
        assert found.num_updates >= 8 and found.most_cycles >= 3


@pytest.mark.parametrize("best", [0.003, 0.1, 0.2, 2.0])
def test_the_walk_finds_the_best_rate_with_a_worse_one_on_both_sides(best):
    cycles = walk(bowl(best), 0.1, 9)
    rates = [cycle.lr for cycle in cycles]
    place = min(range(len(cycles)), key=lambda each: cycles[each].loss)
    assert rates == sorted(rates) and 0 < place < len(cycles) - 1
    assert abs(math.log(rates[place] / best, STEP)) <= 0.51
    assert len(walk(bowl(best), 0.1, 3)) == 3


@pytest.mark.parametrize("raised", [math.inf, 20.2])
def test_the_walk_goes_down_if_the_first_cycles_diverge_or_raise_the_loss(raised):
    tried = []

    def measure(lr):
        tried.append(lr)
        if lr > 0.02:  # the higher rate of two that are too high may have the lower loss
            return Cycle(lr, raised / lr if lr < 0.1 else raised, None, 3.0)
        return bowl(0.01)(lr)

    cycles = walk(measure, 0.1, 6)
    assert tried[:3] == [0.1, 0.0316, 0.01] and min(tried) < 0.01
    assert max(cycle.lr for cycle in cycles) == 0.1


@pytest.mark.parametrize("best", [0.05, 0.1, 0.15])
def test_the_suggestion_lies_between_the_best_rate_and_the_usual_one(best):
    choice = choose(walk(bowl(best), 0.1, 6), usual=0.1, weights_grow=False)
    assert min(best, 0.1) * 0.99 <= choice.lr <= max(best, 0.1) * 1.01
    assert choice.low < choice.lr < choice.high
    assert (choice.reason, choice.doubt) == ("", "")


def test_weights_that_grow_double_the_rate():
    cycles = walk(bowl(0.2), 0.1, 6)
    doubled, single = (choose(cycles, 0.1, weights_grow) for weights_grow in (True, False))
    assert doubled.lr == pytest.approx(2 * single.lr)
    assert doubled.high == pytest.approx(2 * single.high)


def test_doubling_a_rate_does_not_lead_beyond_six_times_the_usual_one():
    rates = [choose(walk(bowl(best, bend=0.1), 0.1, 9), 0.1, weights_grow=True).lr for best in (0.8, 2.0, 8.0)]
    assert rates == pytest.approx([2 * math.sqrt(0.8 * 0.1), 0.6, math.sqrt(8.0 * 0.1)], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"weights": "some.safetensors", "freeze_norms": "on"}, False),
        ({"weights": "some.safetensors", "freeze": "backbone"}, False),
        ({"weights": "some.safetensors", "freeze": 1}, True),
        ({"model": "vit", "dim": 24, "depth": 1, "heads": 2}, False),
        ({"optimizer": "muon"}, True),
        ({"optimizer": "muon", "normalise_weights": "on"}, False),
    ],
)
def test_weights_grow_before_batch_norms_that_follow_the_training_unless_they_are_normalised(changes, expected):
    assert short_cycles.weights_grow(recipe_of(**changes)) == expected


def test_flat_losses_have_a_wide_band_and_steep_ones_a_narrow_band():
    flat, steep = (choose(walk(bowl(0.1, bend), 0.1, 6), usual=0.1, weights_grow=False) for bend in (0.03, 3.0))
    assert flat.high / flat.low > 2 * steep.high / steep.low


def test_a_best_rate_at_the_end_of_the_walk_is_in_doubt():
    choice = choose(walk(bowl(1e-5, bend=0.02), 0.1, 3), usual=0.1, weights_grow=False)
    assert choice.lr is not None
    assert choice.doubt.startswith("the lowest of 3 rates was the best")


def test_cycles_that_all_diverge_suggest_nothing():
    choice = choose(walk(lambda lr: Cycle(lr, math.inf, None, 3.0), 0.1, 4), usual=0.1, weights_grow=False)
    assert choice.lr is None
    assert choice.reason == "every short cycle diverged, down to lr 3.16e-03"


def test_cycles_that_do_not_learn_leave_the_usual_rate_in_doubt():
    choice = choose(walk(lambda lr: Cycle(lr, 2.99, None, 3.0), 0.1, 4), usual=0.1, weights_grow=False)
    assert choice.lr == 0.1
    assert choice.doubt.startswith("no short cycle lowered the loss by 5%: a usual rate is taken")


def test_a_short_cycle_is_the_same_to_the_bit_and_leaves_the_random_state():
    recipe = recipe_of(mixup=0.2)
    before = torch.get_rng_state()
    first, second = (short_cycles.run(short_cycles.training(recipe, 0.05, 12), 0.05, 12) for _ in range(2))
    assert first == second and first.loss < math.inf
    assert torch.equal(torch.get_rng_state(), before)


def test_a_short_cycle_rises_and_falls_within_its_updates():
    rates = []
    short_cycles.run(short_cycles.training(recipe_of(), 0.05, 25), 0.05, 25, lambda lr, _: rates.append(lr))
    assert len(rates) == 25  # two and a half epochs
    assert max(rates) == pytest.approx(0.05, rel=0.02)
    assert rates[0] == pytest.approx(0.05 / 25) and rates[-1] < 1e-4


def test_a_short_cycle_that_diverges_has_an_infinite_loss():
    assert short_cycles.run(short_cycles.training(recipe_of(), 1e30, 12), 1e30, 12).loss == math.inf


def test_images_stay_small_for_their_share_of_a_short_cycle():
    training = short_cycles.training(recipe_of(first_size=16), 0.05, 10)
    sides = []
    training.model.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[-1]))
    short_cycles.run(training, 0.05, 10)
    assert sides[:10] == [16] * 5 + [32] * 5
