"""Parameters: their bounds, their defaults, and their way through flags, files and stores."""

import json
import math
from typing import get_args

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.augmentation import POLICIES
from pipeline.data.decoder import RESIZES
from pipeline.params import (
    COMMANDS,
    STEPS,
    MainParams,
    MapMethod,
    Params,
    RecipeParams,
    TrainParams,
    as_text,
)
from pipeline.params.main import StepName
from pipeline.params.networks import NETWORKS
from pipeline.settings import resolve
from pipeline.training import loss, optimizers


def test_text_is_converted_to_the_type_of_its_parameter():
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
        {"model": "fast", "image_size": 8, "crop_padding": 0},
        {"model": "fast", "first_size": 8},
        {"first_size": 33},
        {"first_size": 4},
        {"model": "vit", "first_size": 16},
        {"optimizer": "sgd", "normalise_weights": "on"},
        {"bias_lr": 0},
        {"norm_momentum": 1.5},
        {"dataset": "digits", "labels": "labels.csv"},
        {"crop_area": 1.1},
        {"augment": "random"},
        {"resize": "stretch"},
        {"class_weights": "inverse"},
        {"model": "resnet51"},
        {"weights": "imagenet"},
        {"weights": "run:12"},
        {"weights": "weights.pickle"},
        {"weights": "default"},
        {"model": "resnet50", "weights": "none", "freeze": "backbone"},
        {"model": "resnet50", "weights": "default", "freeze": 0},
        {"model": "resnet50", "weights": "default", "unfreeze_epoch": 3},
        {"model": "resnet50", "weights": "default", "freeze": 2, "unfreeze_epoch": 1},
        {"model": "resnet50", "weights": "default", "freeze": 2, "unfreeze_epoch": 13},
        {"lr_decay": 0},
        {"lr_decay": 1.1},
        {"mean": "0.5,0.5"},
        {"mean": 0.5},
        {"mean": [0.5, 0.5, 1.5]},
        {"std": "0.5,0,0.5"},
    ],
)
def test_a_wrong_value_is_refused(wrong):
    with pytest.raises(ValidationError) as refused:
        TrainParams(**wrong)
    # A parameter that does not exist would be refused too.
    assert "extra_forbidden" not in {error["type"] for error in refused.value.errors()}


def test_a_parameter_of_another_step_is_refused():
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TrainParams(steps="train")


def test_patch_size_matters_only_to_vit():
    assert TrainParams(model="resnet18", patch_size=5).patch_size == 5


def test_parameters_are_frozen():
    with pytest.raises(ValidationError):
        TrainParams().epochs = 3


def test_every_parameter_has_a_description():
    for params in STEPS.values():
        assert params.__doc__ != Params.__doc__
        for name, field in params.model_fields.items():
            assert field.description, name


def test_main_has_the_parameters_of_all_its_steps_with_the_same_defaults_except_data_paths():
    for step in get_args(StepName):
        for name, field in STEPS[step].model_fields.items():
            if name not in ("data_dir", "devices", "shard_weights"):  # an experiment runs in one process, without ranks
                assert MainParams.model_fields[name].default == field.default


@pytest.mark.parametrize("rate", [0.1, "0.1", "1e-1"])
def test_an_experiment_at_a_given_rate_has_no_range_test_unless_it_is_asked_for(rate):
    assert MainParams(max_lr=rate).steps == ("train", "evaluate", "explain")
    assert MainParams(max_lr=rate, steps="lr_range,train").steps == ("lr_range", "train")
    assert MainParams(max_lr="auto").steps == MainParams().steps == ("lr_range", "train", "evaluate", "explain")


def test_choices_of_optimizer_data_and_loss_match_their_tables():
    choices = {name: set(get_args(field.annotation)) for name, field in RecipeParams.model_fields.items()}
    assert choices["optimizer"] == set(optimizers.OPTIMIZERS)
    assert choices["resize"] == set(RESIZES)
    assert choices["augment"] == {"basic", *POLICIES}
    assert choices["class_weights"] == {"none", *loss.RULES}


@pytest.mark.parametrize(
    ("recipe", "margin"),
    [
        ({"image_size": 224}, 0),
        ({"image_size": 224, "crop_area": 0.35}, 17),
        ({"image_size": 224, "crop_area": 0.35, "resize": "pad"}, 0),
        ({"image_size": 224, "crop_area": 0.35, "resize": "squash"}, 0),
    ],
)
def test_a_margin_is_stored_only_for_random_resized_crops_with_resize_crop(recipe, margin):
    assert TrainParams(**recipe).margin == margin


def test_choices_of_the_map_method_match_their_table():
    from pipeline.explain import attribution

    assert get_args(MapMethod) == (attribution.AUTO, *attribution.METHODS)


def test_the_recipe_has_the_parameters_that_a_rate_depends_on():
    recipe = TrainParams().identity()
    assert recipe["batch_size"] == 128
    for apart in ("seed", "device", "data_dir", "max_lr", "epochs", "experiment", "limit_test"):
        assert apart not in recipe
    assert TrainParams(seed=1, epochs=3, max_lr=1).identity() == recipe
    assert TrainParams(weight_decay=0.1).identity() != recipe
    normalised = TrainParams(mean="0.485,0.456,0.406").identity()
    assert normalised == json.loads(json.dumps({**recipe, "mean": [0.485, 0.456, 0.406]}))


def values(schema):
    """Any value that a field's JSON schema allows."""
    if "anyOf" in schema:
        return st.one_of([values(each) for each in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    kind = schema["type"]
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if kind == "integer":
        return st.integers(low, high - ("exclusiveMaximum" in schema) if high is not None else 10**12)
    if kind == "number":
        open_at = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
        return st.floats(low, high, **open_at, allow_nan=False, allow_infinity=False)
    if kind == "boolean":
        return st.booleans()
    if "prefixItems" in schema:
        return st.tuples(*map(values, schema["prefixItems"]))
    if kind == "array":
        return st.lists(values(schema["items"]), min_size=1, max_size=schema.get("maxItems", 4)).map(tuple)
    if kind == "object":
        return st.dictionaries(TEXT, st.lists(st.integers() | TEXT | st.booleans(), min_size=1), max_size=2)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True, alphabet=WRITABLE)
    return TEXT if not schema.get("minLength") else TEXT.filter(bool)


WRITABLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
TEXT = st.text(WRITABLE, max_size=20)


# Parameters that are texts. Only few texts are valid.
NAMES = {
    "model": NETWORKS,
    "weights": ["none", "default", "IMAGENET1K_V1", "ResNet50_Weights.DEFAULT", "a b.safetensors", f"run:{'0' * 32}"],
}


def given_some(step):
    """A strategy for parameters of a step: the required ones and up to four others, by name."""
    schema = STEPS[step].model_json_schema()
    fields = {name: values(each) for name, each in schema["properties"].items() if name not in ("experiment", "resume")}
    fields |= {name: st.sampled_from(NAMES[name]) for name in NAMES.keys() & fields.keys()}
    return st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in {*names, *schema.get("required", ())}})
    )


@pytest.mark.parametrize("step", STEPS)
@settings(derandomize=True, deadline=None, max_examples=30)
@given(data=st.data())
def test_parameters_survive_flags_experiment_files_mlflow_and_params_json(step, tmp_path_factory, data):
    drawn = data.draw(given_some(step))
    try:
        params = STEPS[step](experiment="none", **drawn)
    except ValidationError:
        assume(False)
    flags = {name: as_text(value) for name, value in drawn.items()}
    assert resolve(step, {**flags, "experiment": "none"}) == params

    file = tmp_path_factory.getbasetemp() / f"{step}.yaml"
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in drawn.items()}
    of_experiments = {name: value for name, value in plain.items() if name in MainParams.model_fields}
    file.write_text(yaml.safe_dump(of_experiments), encoding="utf-8")
    others = {name: flags[name] for name in plain.keys() - of_experiments.keys()}
    assert resolve(step, {**others, "experiment": str(file)}) == params.model_copy(update={"experiment": str(file)})

    in_mlflow = {name: as_text(value) for name, value in params.model_dump().items()}
    assert STEPS[step](**in_mlflow) == params
    assert STEPS[step](**json.loads(json.dumps(params.model_dump()))) == params


@pytest.mark.parametrize("command", COMMANDS)
def test_no_parameter_is_declared_by_two_bases(command):
    """Otherwise the order of the bases would decide which default is used."""
    declaring = {}
    for base in COMMANDS[command].__mro__:
        for name in vars(base).get("__annotations__", {}):
            declaring.setdefault(name, []).append(base.__name__)
    fields = COMMANDS[command].model_fields
    assert {name: bases for name, bases in declaring.items() if name in fields and len(bases) > 1} == {}
