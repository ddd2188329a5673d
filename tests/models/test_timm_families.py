"""A small network of each timm family: built, updated, explained, stored, served and exported."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline import models
from pipeline.explain import attribution
from pipeline.model_files import checkpoint, export
from pipeline.model_files.classifier import Classifier
from pipeline.model_files.serving import ServedClassifier
from pipeline.models import timm_networks
from pipeline.models.stages import head
from pipeline.training import optimizers
from pipeline.training.update import train_step

CLASSES = ["a", "b", "c"]
# A network for each family, by the family's module in timm. At 64 px, the last grid is 2 cells wide, because a single
# cell gives a blank map.
LIGHT = {
    "convnext": "test_convnext",
    "efficientnet": "test_efficientnet",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "maxxvit": "test_maxvit",
    "mobilenetv3": "mobilenetv3_small_050",
    "nfnet": "test_nfnet",
    "resnet": "test_resnet",
    "vision_transformer": "test_vit",
}
HEAVY = {
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "convit": "convit_tiny",
    "cpubone": "cpubone_nano",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientvit_mit": "efficientvit_b0",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "gcvit": "gcvit_xxtiny",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "inception_next": "inception_next_atto",
    "lcnetv2": "lcnetv2_small",
    "mambaout": "test_mambaout",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilevit": "mobilevit_xxs",
    "pvt_v2": "pvt_v2_b0",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "resnest": "resnest14d",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "senet": "legacy_seresnet18",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "tiny_vit": "tiny_vit_5m_224",
    "visformer": "visformer_tiny",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xcit": "xcit_nano_12_p8_224",
}
LARGER = {"efficientvit_msra": ("efficientvit_m0", 128), "levit": ("levit_128s", 128), "shvit": ("shvit_s1", 128)}
CASES = [
    *(pytest.param(name, 64, id=family) for family, name in LIGHT.items()),
    *(pytest.param(name, 64, id=family, marks=pytest.mark.slow) for family, name in HEAVY.items()),
    *(pytest.param(*case, id=family, marks=pytest.mark.slow) for family, case in LARGER.items()),
]


def build(name, size):
    torch.manual_seed(0)
    model = models.build(name, num_classes=len(CLASSES), image_size=size)
    nn.init.normal_(head(model)[1].weight, std=0.1)  # some heads start at zero
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # else the initial statistics would weaken every layer
    return model


def images(size):
    pixels = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return pixels.numpy(), (pixels.float() / 255 - 0.5) / 0.25


@pytest.mark.parametrize(("network", "size"), CASES)
def test_a_network_of_every_family_is_updated_explained_stored_and_served(network, size, tmp_path):
    name = f"timm/{network}"
    model, (pixels, given) = build(name, size), images(size)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    optimizer = optimizers.build("sgd", model.train(), lr=0.01, momentum=0, weight_decay=0, lr_decay=0.9)
    for _ in range(3):  # the inner layers of a branch that starts at zero move from the second update on
        loss, _ = train_step(model, given, torch.arange(3), optimizer, "fp32", 0.0)
        assert loss.isfinite()
    still = [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])]
    assert len(still) < 0.5 * len(before), still  # layers before a gain that starts at zero have hardly moved

    where, predicted = models.cam_target(name, model), model.eval()(given).argmax(1)
    maps = attribution.class_maps(model, where, given, predicted, "gradcam")
    assert maps.shape == (3, size, size)
    assert not attribution.is_blank(maps).all()
    assert min(attribution.grid_size(model, where, given)) > 1

    described = {"network": {"name": name, "options": {}}, "image_size": size, "classes": CLASSES}
    described |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    file = tmp_path / "w.safetensors"
    checkpoint.save(file, model.state_dict(), described)
    classifier = Classifier.load(file)
    assert all(torch.equal(model.state_dict()[key], kept) for key, kept in classifier.model.state_dict().items())
    served = ServedClassifier()
    served.load_context(SimpleNamespace(artifacts={"weights": str(file)}))
    with torch.no_grad():
        expected = model(given).softmax(1)
    np.testing.assert_allclose(served.predict(None, pixels)[[f"p/{each}" for each in CLASSES]], expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size"), CASES)
def test_a_network_of_every_family_is_exported_with_the_same_answers(network, size, tmp_path):
    described = {"network": {"name": f"timm/{network}", "options": {}}, "image_size": size, "classes": CLASSES}
    described |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    checkpoint.save(tmp_path / "w.safetensors", build(f"timm/{network}", size).state_dict(), described)
    classifier, file = Classifier.load(tmp_path / "w.safetensors"), tmp_path / "model.pt2"
    export.write(classifier, "torch_export", file, {})
    assert export.difference(classifier, "torch_export", file, images(size)[0]) < export.TOLERANCE


UNMAPPED = {
    "coat": ("coat_tiny", 224),  # the head does not read the layer that timm names last
    "crossvit": ("crossvit_tiny_240", 240),  # two sizes of patches at once
    "efficientvim": ("efficientvim_m1", 224),  # as pit
    "pit": ("pit_ti_224", 224),  # tokens and class token as a pair
}


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size"), UNMAPPED.values(), ids=UNMAPPED)
def test_a_map_of_a_family_without_one_grid_is_refused_in_one_line(network, size):
    model, given = build(f"timm/{network}", size).eval(), images(size)[1]
    where = models.cam_target(f"timm/{network}", model)
    with pytest.raises(ValueError, match=r"^there is no map of this network: its layer ") as error:
        attribution.class_maps(model, where, given, torch.arange(3), "gradcam")
    assert "\n" not in str(error.value)


def test_a_map_of_a_network_that_names_no_layers_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^Linear of timm names no layer with a grid, so there is no map of it$"):
        timm_networks.cam_target(nn.Linear(3, 3))


@pytest.mark.parametrize("network", ["levit_128s", "deit_tiny_distilled_patch16_224"])
def test_weights_of_two_heads_are_refused_before_they_are_fetched(network):
    with pytest.raises(ValueError, match="has 2 heads, and only one is fitted to other classes"):
        timm_networks.published(f"timm/{network}", "default")


def test_a_network_that_draws_random_constants_has_an_outline():
    model = models.outline("timm/vit_small_patch16_rope_mixed_224", num_classes=1000, image_size=224)
    assert sum(parameter.numel() for parameter in model.parameters()) == 21_988_840
