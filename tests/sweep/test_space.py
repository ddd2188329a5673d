"""The space of a sweep is checked before the first trial, and values are drawn as declared."""

import json
import re

import optuna
import pytest

from pipeline.params import TrainParams
from pipeline.sweep.samplers import SAMPLERS, OnGrid
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


def test_values_have_the_type_of_their_parameter():
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


def test_a_range_allows_only_its_own_values():
    declared = space({"max_lr": {"low": 1e-4, "high": 3e-2, "log": True}})
    assert [declared.allows("max_lr", rate) for rate in (1e-4, 1e-2, 3e-2, 8e-2)] == [True, True, True, False]
    stepped = space({"max_lr": {"low": 0.1, "high": 0.5, "step": 0.1}})
    assert [stepped.allows("max_lr", rate) for rate in (0.1, 0.3, 0.35, 0.6)] == [True, True, False, False]


STEPPED = [
    ("max_lr", {"low": 0.1, "high": 0.3, "step": 0.1}, [0.1, 0.2, 0.3], ""),
    ("max_lr", {"low": 0.1, "high": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5], ""),
    ("momentum", {"low": 0.9, "high": 0.94, "step": 0.02}, [0.9, 0.92, 0.94], ""),
    ("weight_decay", {"low": 1e-5, "high": "5e-5", "step": "2e-5"}, [1e-5, 3e-5, 5e-5], ""),
    (
        "label_smoothing",
        {"low": 0, "high": 0.25, "step": 0.1},
        [0, 0.1, 0.2],
        "steps of 0.1 from 0 do not end at 0.25",
    ),
    ("label_smoothing", {"low": 0.1, "high": 0.2, "step": 0.3}, [0.1], "steps of 0.3 from 0.1 do not end at 0.2"),
    (
        "width",
        {"low": 8, "high": 33, "step": 8},
        [8, 16, 24, 32],
        "do not end at 33; the highest value is 32",
    ),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "entry", "values", "message"), STEPPED)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_stepped_range_has_values_without_rounding_errors(name, entry, values, message, sampler, capsys):
    declared = space({name: entry}, model="resnet9")
    assert declared.grid() == {name: values}
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == bool(message)
    study = optuna.create_study(sampler=OnGrid(SAMPLERS[sampler](0, declared)))
    drawn = []

    def objective(trial):
        drawn.append(declared.suggest(trial))
        return float(trial.number % 3)

    study.optimize(objective, n_trials=len(values) if sampler == "grid" else 16)
    assert [trial.params for trial in study.trials] == drawn
    tried = {declared.params(each).model_dump()[name] for each in drawn}
    assert tried == set(values) if sampler in ("grid", "random") else tried <= set(values)


def test_a_narrowed_stepped_range_keeps_its_values():
    declared = space({"max_lr": {"low": 0.1, "high": 0.9, "step": 0.2}})
    assert declared.narrowed("max_lr", 0.23, 0.8).grid() == {"max_lr": [0.3, 0.5, 0.7]}
    assert declared.narrowed("max_lr", 0.31, 0.39).grid() == declared.grid()


@pytest.mark.parametrize("is_on", [True, "on"])
def test_true_and_false_from_yaml_become_on_and_off_in_choices_and_conditions(is_on):
    given = {
        "optimizer": ["sgd", "muon"],
        "normalise_weights": {"choices": [is_on, False], "when": {"optimizer": "muon"}},
        "bias_lr": {"choices": [2], "when": {"normalise_weights": is_on}},
        "flip": [is_on, False, "auto"],
        "ema_decay": {"choices": ["0.5"], "when": {"flip": [False, "auto"], "epochs": "12"}},
        "keep_checkpoints": [True, "off"],
    }
    declared = space(given, compile=False)
    assert declared.entries["normalise_weights"].choices == ("on", "off")
    assert declared.entries["flip"].choices == ("on", "off", "auto")
    assert declared.entries["keep_checkpoints"].choices == (True, False)
    drawn = {"optimizer": "muon", "normalise_weights": "on", "bias_lr": 2.0, "flip": "off", "ema_decay": 0.5}
    assert draw(declared, **drawn, keep_checkpoints=False) == {**drawn, "keep_checkpoints": False}
    assert space({"dim": {"choices": [96], "when": {"compile": False}}}, compile="off").suggest(
        optuna.trial.FixedTrial({"dim": 96})
    )


def test_a_condition_decides_whether_a_parameter_is_drawn():
    declared = space(CONDITIONAL)
    assert draw(declared, model="vit", patch_size=2) == {"model": "vit", "patch_size": 2}
    assert draw(declared, model="resnet18", width=16) == {"model": "resnet18", "width": 16}
    assert len(list(declared.combinations("model", "patch_size", "width"))) == 2 + 3


def test_a_patch_size_that_does_not_divide_is_allowed_if_it_is_never_used():
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
def test_a_space_that_no_trial_would_refuse_is_allowed(given):
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
        ({"max_lr": {"low": 0, "high": 1, "log": True}}, "must start above 0"),
        ({"max_lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "give log or step, not both"),
        ({"max_lr": {"low": 0.1}}, "space.max_lr.high: Field required"),
        ({"max_lr": {"low": 0.1, "hihg": 1}}, "space.max_lr"),
        ({"max_lr": 0.1}, "space.max_lr: expected a list of choices, or low and high, found 0.1"),
        ({"max_lr": []}, "space.max_lr.choices"),
        ({"max_lr": ["fast"]}, "space.max_lr: fast is not a number"),
        ({"epochs": {"low": 1.5, "high": 4}}, "space.epochs: is a whole number"),
        ({"optimizer": {"low": 1, "high": 2}}, "space.optimizer: is not a number; give a list of choices"),
        ({"optimizer": ["sgd", "adam"]}, "space: optimizer=adam"),
        ({"maxlr": [1]}, "no parameter of training is called maxlr; did you mean max_lr?"),
        ({"dataset": ["digits", "mnist"]}, "dataset must be the same for all trials"),
        ({"precision": ["fp32", "bf16"]}, "precision must be the same for all trials"),
        ({"mean": ["0.5,0.5,0.5"]}, "mean must be the same for all trials"),
        (
            {"optimizer": ["muon", "sgd"], "normalise_weights": ["off", "on"]},
            "normalise_weights=on needs optimizer=muon, not sgd",
        ),
        ({"model": ["resnet18", "vit"], "first_size": [16]}, "first_size: a vit takes images of only one size"),
        (
            {"weights": ["run:" + 32 * "0"], "freeze": [1], "epochs": [4, 12], "unfreeze_epoch": [2, 8]},
            "unfreeze_epoch=8 must be at most epochs=4",
        ),
        (
            {"epochs": [1, 2], "dim": {"choices": [96], "when": {"epoch": 1}}},
            "no parameter is called epoch; did you mean epochs?",
        ),
        (
            {"dim": {"choices": [96], "when": {"epochs": 1}}, "epochs": [1, 2]},
            "space.dim.when: epochs must come before dim",
        ),
        ({"seed": [1, 2]}, "space: seed cannot be varied, as no seed is better; num_seeds trains with several seeds"),
        ({"seed": {"low": 0, "high": 9}}, "space: seed cannot be varied"),
        ({"momentum": {"low": 0.9, "high": 0.96, "step": 0.02}}, "momentum=0.96: should be less than or equal to 0.94"),
        ({"mixup": {"low": 0, "high": 1, "step": 1e-9}}, "step 1e-09 gives more than 10,000 values"),
        ({"batch_size": {"low": 1, "high": 1e9}}, "space.batch_size: has more than 10,000 values"),
        ({"max_lr": [True]}, "space.max_lr: True is not a number"),
        ({"flip": [True, "of"]}, "flip=of: should be 'auto', 'on', 'off' or 'alternate'"),
    ],
)
def test_a_space_that_a_trial_would_refuse_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=r"^space") as error:
        space(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_space_that_the_message_suggests_is_valid():
    with pytest.raises(ValueError, match="nothing to vary") as error:
        space({})
    advised = re.search(r"such as space='(.*)'", str(error.value))[1]
    assert list(space(json.loads(advised), model="resnet18", max_lr="auto").entries) == ["max_lr"]


def test_the_space_or_the_fixed_parameters_must_give_a_rate():
    with pytest.raises(ValueError, match="max_lr=auto: in a sweep, give max_lr or put it into the space"):
        space({"patch_size": [4]}, max_lr="auto")


def test_every_trial_must_get_a_rate():
    conditional = {**CONDITIONAL, "max_lr": {"choices": [0.1], "when": {"model": "vit"}}}
    with pytest.raises(ValueError, match=r"^max_lr=auto: .* put it into the space for model=resnet18$"):
        space(conditional, max_lr="auto")
    assert space(conditional).params({"model": "resnet18"}).max_lr == 0.01


@pytest.mark.parametrize(
    "given",
    [{"max_lr": {"low": 1e-3, "high": 1, "log": True}}, {"depth": [1], "dim": {"choices": [96], "when": {"depth": 1}}}],
)
def test_a_grid_supports_neither_continuous_ranges_nor_conditions(given):
    with pytest.raises(ValueError, match=r"^sampler=grid: "):
        space(given).grid()
