"""Features of any network: the input of its head and of its last stage."""

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from pipeline import models
from pipeline.models.features import start_of_last_stage, with_features, with_layer_inputs
from pipeline.models.stages import head

SMALL = {"width": 4, "patch_size": 8, "dim": 12, "depth": 2, "heads": 2}
# The first network of each family. Some families cannot be built on the device `meta`, which has no memory.
FAMILIES = {get_model_builder(name).__module__: name for name in reversed(list_models(module=torchvision.models))}
WITH_MEMORY = {"torchvision.models.regnet": "regnet_y_400mf"}


@pytest.mark.parametrize("name", models.MODELS)
def test_the_head_makes_the_logits_of_the_first_features(name):
    torch.manual_seed(0)
    model = models.build(name, num_classes=7, image_size=32, **SMALL).eval()
    for parameter in head(model)[1].parameters():
        nn.init.normal_(parameter)  # the head of a vit starts at zero
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        logits, of_head, of_stage = with_layer_inputs(model, images)
        assert logits.shape == (3, 7) and len(of_head) == len(of_stage) == 3
        assert torch.equal(logits, model(images))
        assert torch.allclose(head(model)[1](of_head), logits, atol=1e-5)
        assert of_stage.shape[1] > 0
        features = with_features(model, images)[1]
    width = of_head.shape[1]
    for part, whole in ((features[:, :width], of_head), (features[:, width:], of_stage)):
        assert torch.allclose(part.norm(dim=1), torch.ones(3), atol=1e-5)
        assert torch.allclose(part * whole.norm(dim=1, keepdim=True), whole, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_torchvision_has_features_and_a_head(family):
    place = "cpu" if family in WITH_MEMORY else "meta"
    with torch.device(place), torch.inference_mode():
        sizes = {"aux_logits": False, "init_weights": True} if "googlenet" in family or "inception" in family else {}
        model = get_model(WITH_MEMORY.get(family, FAMILIES[family]), num_classes=7, **sizes).eval()
        logits, features = with_features(model, torch.zeros(2, 3, 224, 224))
    last = head(model)[1]
    assert (last.out_features if isinstance(last, nn.Linear) else last.out_channels) == logits.shape[1] == 7
    inputs = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    assert features.ndim == 2 and inputs < features.shape[1] < 8000


def test_the_input_of_the_last_stage_is_averaged_over_its_positions_wherever_they_lie():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    images = torch.randn(4, 3, 6, 6)
    _, of_head, of_stage = with_layer_inputs(model, images)
    assert torch.allclose(of_head, model[:5](images), atol=1e-6)
    assert start_of_last_stage(model) is model[2]
    assert torch.allclose(of_stage, model[:2](images).mean((2, 3)), atol=1e-6)
    tokens = nn.Sequential(nn.LayerNorm(8), nn.Flatten(), nn.Linear(40, 2))
    given = torch.randn(4, 5, 8)
    _, of_head, of_stage = with_layer_inputs(tokens, given)
    assert of_head.shape == (4, 40) and torch.allclose(of_stage, given.mean(1), atol=1e-6)


def test_a_model_of_linear_layers_has_its_penultimate_features_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    assert start_of_last_stage(model) is None
    assert with_features(model, torch.randn(3, 3, 2, 2))[1].shape == (3, 4)


def test_no_hook_stays_behind_and_a_model_without_layers_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(RuntimeError):
        with_features(model, torch.randn(1, 3, 9, 9))
    assert not model[1]._forward_pre_hooks
    with pytest.raises(ValueError, match="Flatten"):
        with_features(nn.Flatten(), torch.randn(1, 3, 2, 2))
