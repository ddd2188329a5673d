import math
from typing import get_args

import pytest
from pydantic import ValidationError

from pipeline import models
from pipeline.params import STEPS, CamMethod, MainParams, ModelName, Params, RecipeParams, TrainParams
from pipeline.training import optimizers


def test_text_is_read_as_its_type():
    params = TrainParams(max_lr="1e-3", batch_size="64")
    assert params.max_lr == 1e-3
    assert params.batch_size == 64


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_lr": "fast"},
        {"max_lr": 0},
        {"max_lr": math.nan},
        {"max_lr": math.inf},
        {"epochs": 0},
        {"epochs": "2.5"},
        {"valid_fraction": 1},
        {"seed": -1},
        {"device": "gpu"},
        {"model": "vit", "patch_size": 5},
        {"model": "vit", "dim": 100, "heads": 3},
        {"image_size": 16, "crop_padding": 16},
        {"steps": "train"},
    ],
)
def test_out_of_bounds_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainParams(**wrong)


def test_patch_size_matters_to_vit_alone():
    assert TrainParams(model="resnet18", patch_size=5).patch_size == 5


def test_parameters_are_frozen():
    with pytest.raises(ValidationError):
        TrainParams().epochs = 3


def test_every_knob_says_what_it_is():
    for params in STEPS.values():
        assert params.__doc__ != Params.__doc__
        for name, field in params.model_fields.items():
            assert field.description, name


def test_main_has_every_step_s_knobs_with_the_same_defaults_but_for_where_the_data_lies():
    for params in STEPS.values():
        for name, field in params.model_fields.items():
            if name != "data_dir":
                assert MainParams.model_fields[name].default == field.default


def test_names_match_the_tables():
    assert set(get_args(ModelName)) == set(models.MODELS)
    assert set(get_args(RecipeParams.model_fields["optimizer"].annotation)) == set(optimizers.OPTIMIZERS)


def test_cam_methods_match_the_table():
    from pipeline.explain import attribution

    assert set(get_args(CamMethod)) == set(attribution.METHODS)


def test_the_recipe_is_what_a_rate_depends_on():
    recipe = TrainParams().recipe()
    assert recipe["batch_size"] == 128
    for apart in ("seed", "device", "data_dir", "max_lr", "epochs", "experiment", "limit_test"):
        assert apart not in recipe
    assert TrainParams(seed=1, epochs=3, max_lr=1).recipe() == recipe
    assert TrainParams(weight_decay=0.1).recipe() != recipe
