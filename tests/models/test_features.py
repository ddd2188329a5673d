import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model, get_model_builder, list_models

from pipeline import models
from pipeline.models.fast import HEAD_SCALE
from pipeline.models.features import head, with_features

SMALL = {"width": 4, "patch_size": 8, "dim": 12, "depth": 1, "heads": 2}
FAMILIES = {get_model_builder(name).__module__: name for name in list_models(module=torchvision.models)}


@pytest.mark.parametrize("name", models.MODELS)
def test_the_head_makes_the_logits_of_the_features(name):
    torch.manual_seed(0)
    model = models.build(name, num_classes=7, image_size=32, **SMALL).eval()
    for parameter in head(model).parameters():
        nn.init.normal_(parameter)  # that of a vit starts at zero
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        logits, features = with_features(model, images)
        assert logits.shape == (3, 7) and features.ndim == 2
        assert torch.equal(logits, model(images))
        scale = HEAD_SCALE if name == "fast" else 1
        assert torch.allclose(head(model)(features) * scale, logits, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", FAMILIES.values())
def test_it_is_the_last_layer_declared_in_every_family_of_torchvision(name):
    # One of the smallest where building looks at numbers, which need memory; else none is taken.
    name, place = ("regnet_y_400mf", "cpu") if name.startswith("regnet") else (name, "meta")
    with torch.device(place):
        layer = head(get_model(name, num_classes=7))
    assert (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) == 7


def test_features_of_a_convolutional_head_are_averaged_over_their_positions():
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(4, 3, 6, 6)
    logits, features = with_features(model, images)
    assert torch.allclose(features, model[:2](images).mean((2, 3)))
    assert torch.allclose(model[2](features[..., None, None]).flatten(1), logits, atol=1e-5)


def test_no_hook_stays_behind_and_a_model_without_layers_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(RuntimeError):
        with_features(model, torch.randn(1, 3, 9, 9))
    assert not model[1]._forward_pre_hooks
    with pytest.raises(ValueError, match="Flatten"):
        with_features(nn.Flatten(), torch.randn(1, 3, 2, 2))
