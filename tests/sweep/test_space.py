"""What a sweep may vary is checked before the first trial, and drawn as declared."""

import json
import re

import optuna
import pytest

from pipeline.params import TrainParams
from pipeline.sweep.space import parse

VIT = {"model": "vit", "max_lr": 0.01}
CONDITIONAL = {
    "model": ["vit", "resnet18"],
    "patch_size": {"choices": [2, 4], "when": {"model": "vit"}},
    "width": {"low": 8, "high": 24, "step": 8, "when": {"model": ["resnet18", "resnet9"]}},
}


def space(given, **base):
    return parse(given, TrainParams(**{**VIT, **base}))


def draw(declared, **fixed):
    return declared.suggest(optuna.trial.FixedTrial(fixed))


def test_values_are_of_their_parameter_s_type():
    declared = space({"max_lr": ["1e-3", 1], "epochs": {"low": 2, "high": 6, "step": 2}})
    assert declared.entries["max_lr"].choices == (1e-3, 1.0)
    assert all(isinstance(rate, float) for rate in declared.entries["max_lr"].choices)
    assert declared.grid() == {"max_lr": [1e-3, 1.0], "epochs": [2, 4, 6]}
    drawn = draw(declared, max_lr=1.0, epochs=4)
    assert declared.params(drawn).epochs == 4


def test_ranges_are_drawn_within_their_bounds_on_their_scale():
    declared = space({"max_lr": {"low": "1e-4", "high": 1e-1, "log": True}, "dim": {"low": 48, "high": 96, "step": 24}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = [declared.suggest(study.ask()) for _ in range(60)]
    rates = [each["max_lr"] for each in draws]
    assert 1e-4 <= min(rates) < 4e-4
    assert 2e-2 < max(rates) <= 1e-1
    assert sum(rate < 10**-2.5 for rate in rates) == pytest.approx(30, abs=12)
    assert {each["dim"] for each in draws} == {48, 72, 96}


def test_a_range_says_what_lies_in_it():
    declared = space({"max_lr": {"low": 1e-4, "high": 3e-2, "log": True}})
    assert [declared.allows("max_lr", rate) for rate in (1e-4, 1e-2, 3e-2, 8e-2)] == [True, True, True, False]


def test_a_condition_decides_whether_a_parameter_is_drawn():
    declared = space(CONDITIONAL)
    assert draw(declared, model="vit", patch_size=2) == {"model": "vit", "patch_size": 2}
    assert draw(declared, model="resnet18", width=16) == {"model": "resnet18", "width": 16}
    assert len(list(declared.combinations("model", "patch_size", "width"))) == 2 + 3


def test_a_patch_size_that_does_not_divide_is_allowed_where_it_is_never_used():
    given = {**CONDITIONAL, "model": ["resnet18", "resnet9"]}
    with pytest.raises(ValueError, match=r"^space\.patch_size\.when: model is never vit"):
        space(given)
    assert space({"patch_size": [3]}, model="resnet18").params({"patch_size": 3}).patch_size == 3


@pytest.mark.parametrize(
    "given",
    [
        {"optimizer": ["adamw", "muon"], "normalise_weights": {"choices": ["on"], "when": {"optimizer": "muon"}}},
        {"model": ["vit", "resnet18"], "first_size": {"choices": [16], "when": {"model": "resnet18"}}},
    ],
)
def test_what_no_trial_would_refuse_is_allowed(given):
    assert list(space(given).entries) == list(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to vary"),
        ({"patch_size": [4, 5]}, "patch_size=5 does not divide image_size=32 (divisors: 1, 2, 4, 8, 16, 32)"),
        ({"patch_size": {"low": 2, "high": 4}}, "patch_size=3 does not divide"),
        ({"heads": [3, 0]}, "space: heads=0: should be greater than or equal to 1"),
        ({"heads": [3, 4], "dim": [192, 100]}, "heads=3 does not divide dim=100"),
        ({"image_size": [32, 36], "patch_size": [4, 8]}, "patch_size=8 does not divide image_size=36"),
        ({"max_lr": [0.1, -1]}, "space: max_lr=-1.0: should be greater than 0"),
        ({"max_lr": {"low": 1e-3, "high": 5000}}, "space: max_lr=5000.0: should be less than or equal to 1000"),
        ({"max_lr": {"low": 1e-3, "high": 1e-3}}, "low 0.001 must be below high 0.001"),
        ({"max_lr": {"low": 0, "high": 1, "log": True}}, "starts above 0"),
        ({"max_lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "log and step exclude each other"),
        ({"max_lr": {"low": 0.1}}, "space.max_lr.high: Field required"),
        ({"max_lr": {"low": 0.1, "hihg": 1}}, "space.max_lr"),
        ({"max_lr": 0.1}, "space.max_lr: expected a list of choices, or low and high, found 0.1"),
        ({"max_lr": []}, "space.max_lr.choices"),
        ({"max_lr": ["fast"]}, "space.max_lr: fast is no number"),
        ({"epochs": {"low": 1.5, "high": 4}}, "space.epochs: is a whole number"),
        ({"optimizer": {"low": 1, "high": 2}}, "space.optimizer: is no number; give a list of choices"),
        ({"optimizer": ["sgd", "adam"]}, "space: optimizer=adam"),
        ({"maxlr": [1]}, "no parameter of training is called maxlr; did you mean max_lr?"),
        ({"dataset": ["digits", "mnist"]}, "dataset is the same for all trials"),
        ({"precision": ["fp32", "bf16"]}, "precision is the same for all trials"),
        (
            {"optimizer": ["muon", "sgd"], "normalise_weights": ["off", "on"]},
            "normalise_weights=on is of optimizer=muon, not of sgd",
        ),
        ({"model": ["resnet18", "vit"], "first_size": [16]}, "first_size: a vit takes images of one size only"),
        (
            {"weights": ["run:" + 32 * "0"], "freeze": [1], "epochs": [4, 12], "unfreeze_epoch": [2, 8]},
            "unfreeze_epoch=8 must be at most epochs=4",
        ),
        (
            {"seed": [1, 2], "dim": {"choices": [96], "when": {"sed": 1}}},
            "no parameter is called sed; did you mean seed?",
        ),
        ({"dim": {"choices": [96], "when": {"seed": 1}}, "seed": [1, 2]}, "space.dim.when: seed must stand before dim"),
    ],
)
def test_what_a_trial_would_refuse_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=r"^space") as error:
        space(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_space_that_is_advised_where_there_is_none_will_do():
    with pytest.raises(ValueError, match="nothing to vary") as error:
        space({})
    advised = re.search(r"such as space='(.*)'", str(error.value))[1]
    assert list(space(json.loads(advised), model="resnet18", max_lr="auto").entries) == ["max_lr"]


def test_a_rate_must_come_from_somewhere():
    with pytest.raises(ValueError, match="max_lr=auto: in a sweep, give max_lr or put it into the space"):
        space({"patch_size": [4]}, max_lr="auto")


def test_a_rate_must_come_from_somewhere_for_every_trial():
    conditional = {**CONDITIONAL, "max_lr": {"choices": [0.1], "when": {"model": "vit"}}}
    with pytest.raises(ValueError, match=r"^max_lr=auto: .* put it into the space for model=resnet18$"):
        space(conditional, max_lr="auto")
    assert space(conditional).params({"model": "resnet18"}).max_lr == 0.01


@pytest.mark.parametrize(
    "given",
    [{"max_lr": {"low": 1e-3, "high": 1, "log": True}}, {"seed": [1], "dim": {"choices": [96], "when": {"seed": 1}}}],
)
def test_a_grid_knows_neither_endless_ranges_nor_conditions(given):
    with pytest.raises(ValueError, match=r"^sampler=grid: "):
        space(given).grid()
