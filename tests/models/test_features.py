import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from pipeline import models
from pipeline.models.features import inner, with_features
from pipeline.models.stages import head

SMALL = {"width": 4, "patch_size": 8, "dim": 12, "depth": 2, "heads": 2}
# The first of each family, but for those that cannot be built without memory.
FAMILIES = {get_model_builder(name).__module__: name for name in reversed(list_models(module=torchvision.models))}
WITH_MEMORY = {"torchvision.models.regnet": "regnet_y_400mf"}


@pytest.mark.parametrize("name", models.MODELS)
def test_the_head_makes_the_logits_of_the_first_features(name):
    torch.manual_seed(0)
    model = models.build(name, num_classes=7, image_size=32, **SMALL).eval()
    for parameter in head(model)[1].parameters():
        nn.init.normal_(parameter)  # that of a vit starts at zero
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        logits, features = with_features(model, images)
        assert logits.shape == (3, 7) and len(features) == 3
        assert torch.equal(logits, model(images))
        penultimate = features[:, : head(model)[1].in_features]
        assert torch.allclose(head(model)[1](penultimate), logits, atol=1e-5)
        assert features.shape[1] > penultimate.shape[1]
        assert features.isfinite().all()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_torchvision_has_features_and_a_head(family):
    place = "cpu" if family in WITH_MEMORY else "meta"
    with torch.device(place), torch.inference_mode():
        model = get_model(WITH_MEMORY.get(family, FAMILIES[family]), num_classes=7).eval()
        logits, features = with_features(model, torch.zeros(2, 3, 224, 224))
    last = head(model)[1]
    assert (last.out_features if isinstance(last, nn.Linear) else last.out_channels) == logits.shape[1] == 7
    inputs = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    assert features.ndim == 2 and inputs < features.shape[1] < 8000


def test_channels_are_averaged_over_their_positions_wherever_they_lie():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(4, 3, 6, 6)
    logits, features = with_features(model, images)
    before = model[:2](images)
    assert torch.allclose(features[:, :5], before.mean((2, 3)), atol=1e-6)
    assert torch.allclose(model[2](features[:, :5, None, None]).flatten(1), logits, atol=1e-5)
    assert torch.allclose(features[:, 10:], before.std((2, 3), correction=0), atol=1e-6)
    tokens = nn.Sequential(nn.LayerNorm(8), nn.Flatten(), nn.Linear(40, 2))
    given = torch.randn(4, 5, 8)
    _, features = with_features(tokens, given)
    assert torch.allclose(features[:, 40:48], given.mean(1), atol=1e-6)
    assert torch.allclose(features[:, 48:], given.std(1, correction=0), atol=1e-6)


def test_a_model_of_linear_layers_has_its_penultimate_features_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    assert inner(model) is None
    assert with_features(model, torch.randn(3, 3, 2, 2))[1].shape == (3, 4)


def test_no_hook_stays_behind_and_a_model_without_layers_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(RuntimeError):
        with_features(model, torch.randn(1, 3, 9, 9))
    assert not model[1]._forward_pre_hooks
    with pytest.raises(ValueError, match="Flatten"):
        with_features(nn.Flatten(), torch.randn(1, 3, 2, 2))
