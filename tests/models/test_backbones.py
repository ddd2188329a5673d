"""One torchvision network of each family, at the smallest size it takes: built, trained, explained and served."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import list_models

from pipeline import models
from pipeline.explain import attribution
from pipeline.model_files import checkpoint
from pipeline.model_files.serving import ServedClassifier
from pipeline.models.backbones import torchvision_name
from pipeline.models.stages import head, stages
from pipeline.params import RecipeParams
from pipeline.params.networks import NETWORKS, OWN, TORCHVISION
from pipeline.training import optimizers
from pipeline.training.update import train_step

# Sides in px. The last grid is at least 2 cells wide, because the map of a single cell is blank.
LIGHT = {
    "squeezenet1_1": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "shufflenet_v2_x0_5": 64,
    "mnasnet0_5": 64,
    "regnet_y_400mf": 64,
    "googlenet": 64,
    "efficientnet_b0": 64,
    "torchvision/resnet18": 64,
}
HEAVY = {  # of 20 million parameters and more, of many layers, or of images no smaller
    "densenet121": 64,
    "alexnet": 127,
    "vgg11": 64,
    "resnext50_32x4d": 64,
    "wide_resnet50_2": 64,
    "inception_v3": 107,
    "efficientnet_v2_s": 64,
    "vit_b_32": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "maxvit_t": 224,
}
CLASSES = ["a", "b", "c"]


def test_the_names_of_networks_are_those_of_torchvision_s_registry_and_our_own():
    assert {torchvision_name(name) for name in TORCHVISION} == set(list_models(module=torchvision.models))
    assert set(OWN) == set(models.MODELS)
    assert len(NETWORKS) == len(set(NETWORKS))


@pytest.mark.parametrize(
    ("name", "size"), [*LIGHT.items(), *(pytest.param(*each, marks=pytest.mark.slow) for each in HEAVY.items())]
)
def test_a_network_of_every_family_is_built_updated_explained_and_served(tmp_path, name, size):
    torch.manual_seed(0)
    model = models.build(name, num_classes=len(CLASSES), image_size=size).to(memory_format=torch.channels_last)
    where = models.cam_target(name, model)
    nn.init.normal_(head(model)[1].weight, std=0.1)  # the head of a vision transformer starts at zero
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # else the initial statistics would weaken every layer
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    pixels = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
    images = (pixels.float() / 255 - 0.5) / 0.25

    stepper = optimizers.build("sgd", model, lr=0.01, momentum=0, weight_decay=0, lr_decay=0.9)
    loss, _ = train_step(model.train(), images, torch.arange(4) % 3, stepper, "fp32", 0.0)
    assert loss.isfinite()
    still = [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])]
    assert len(still) < 0.2 * len(before), still  # single dead units may stay as they were, but not whole parts

    predicted = model.eval()(images).argmax(1)
    maps = attribution.class_maps(model, where, images, predicted, "gradcam")
    assert maps.shape == (4, size, size)
    assert not attribution.is_blank(maps).all()
    assert min(attribution.grid_size(model, where, images)) > 1

    described = {"network": {"name": name, "options": {}}, "image_size": size, "classes": CLASSES}
    described |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    checkpoint.save(tmp_path / "w.safetensors", model.state_dict(), described)
    served = ServedClassifier()
    served.load_context(SimpleNamespace(artifacts={"weights": str(tmp_path / "w.safetensors")}))
    table = served.predict(None, pixels.numpy())
    with torch.no_grad():
        expected = model(images).softmax(1)
    # The served network has another memory format, so its sums are rounded differently.
    np.testing.assert_allclose(table[[f"p/{name}" for name in CLASSES]], expected, atol=1e-3)


STAGES = {
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "fast": ["whiten", "layer1", "layer2", "layer3"],
    "ultimus": [*(f"features.{i}" for i in range(3)), *(f"blocks.{i}" for i in range(4))],
    "vit": ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(6))],
    "resnet50": ["conv1", "layer1", "layer2", "layer3", "layer4"],
    "vgg11": [*(f"features.{i}" for i in (0, 3, 6, 11, 16)), "classifier.0"],
    "mobilenet_v3_small": [*(f"features.{i}" for i in range(13)), "classifier.0"],
    "convnext_tiny": [f"features.{i}" for i in range(8)],
    "swin_t": [f"features.{i}" for i in range(8)],
    "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in range(1, 5))],
    "vit_b_32": ["conv_proj", *(f"encoder.layers.encoder_layer_{i}" for i in range(12))],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_in_the_order_of_the_forward_pass(name):
    model = models.outline(name, num_classes=3, image_size=64)
    assert [stage.name for stage in stages(model)] == STAGES[name]


@pytest.mark.parametrize("name", [*OWN, *LIGHT, *HEAVY])
def test_stages_and_head_hold_every_parameter_once(name):
    model = models.outline(name, num_classes=3, image_size={**LIGHT, **HEAVY}.get(name, 32))
    last = head(model)[1]
    assert last.weight.shape[0] == 3
    held = [*last.parameters(), *(parameter for stage in stages(model) for parameter in stage.parameters)]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    within = {id(parameter) for stage in stages(model) for each in stage.modules for parameter in each.parameters()}
    assert within <= set(map(id, held))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("alexnet", 32, "image_size=32 does not fit alexnet: the next that fits is 63"),
        ("vit_b_16", 40, "image_size=40 does not fit vit_b_16: the next that fits is 48"),
        ("maxvit_t", 200, "image_size=200 does not fit maxvit_t: the next that fits is 221"),
        ("maxvit_t", 1000, "image_size=1000 does not fit maxvit_t: a smaller one may fit"),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_with_the_next_that_it_can(name, size, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        models.check_size(name, size, batch=8)


def test_an_unknown_network_is_refused_by_its_name_and_not_by_its_size():
    with pytest.raises(ValueError, match="did you mean timm/tf_efficientnet_lite0"):
        models.check_size("timm/tf_eficientnet_lite0", 128, 8)


def test_a_network_is_not_built_for_a_size_that_its_patches_do_not_divide():
    with pytest.raises(ValueError, match="image_size=40: vit_b_16 cannot be built for it"):
        models.build("vit_b_16", num_classes=2, image_size=40)


def test_a_last_batch_of_one_image_is_refused_if_batch_norms_cannot_take_it():
    models.check_size("mobilenet_v2", 32, batch=2)
    with pytest.raises(ValueError, match="last batch of one image"):
        models.check_size("mobilenet_v2", 32, batch=1)
    models.check_size("mobilenet_v2", 64, batch=1)
    with pytest.raises(ValueError, match="last batch of one image, which resnet9 cannot train on"):
        models.check_size("resnet9", 8, batch=1, width=8)
    models.check_size("resnet9", 16, batch=1, width=8)
    with pytest.raises(ValueError, match="last batch of one image"):
        models.check_size("resnet9", 16, batch=1, first_size=8, width=8)
    models.check_size("vit", 30, batch=1, patch_size=5)


def test_a_first_size_that_a_network_cannot_take_is_refused():
    models.check_size("resnet50", 64, batch=8, first_size=32)
    with pytest.raises(ValueError, match=r"^first_size=32 does not fit vit_b_16"):
        models.check_size("vit_b_16", 64, batch=8, first_size=32)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean efficientnet_b0"):
        RecipeParams(model="eficientnet_b0")


def test_torchvision_s_resnet18_is_not_ours():
    ours = models.outline("resnet18", num_classes=2, image_size=32)
    theirs = models.outline("torchvision/resnet18", num_classes=2, image_size=32)
    assert isinstance(theirs, torchvision.models.ResNet)
    assert not isinstance(ours, torchvision.models.ResNet)
