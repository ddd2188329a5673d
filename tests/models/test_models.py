"""A contract that each of our own networks keeps, and what is special about each."""

import inspect

import pytest
import torch
from torch import nn

from pipeline import models
from pipeline.models import MODELS
from pipeline.models.ultimus import UltimusBlock
from pipeline.models.vit import tokens_to_grid
from pipeline.params import ModelParams

SMALL = {"width": 4, "patch_size": 4, "dim": 12, "depth": 2, "heads": 3}
PARAMETERS = {"resnet18": 11_173_962, "resnet9": 6_573_130, "fast": 1_972_768, "ultimus": 25_978, "vit": 2_693_578}
GRIDS = {"resnet18": 4, "resnet9": 4, "fast": 3, "ultimus": 32, "vit": 8}

every_model = pytest.mark.parametrize("name", MODELS)


def small(name, num_classes=10, image_size=32, seed=0, **options):
    """A narrow network with fresh weights. Its head is drawn too, because a ViT's head starts at zero."""
    torch.manual_seed(seed)
    model = models.build(name, num_classes=num_classes, image_size=image_size, **{**SMALL, **options})
    weight, bias = list(model.parameters())[-2:]
    nn.init.normal_(weight)
    nn.init.normal_(bias)
    return model


def images(num_images=3, size=32):
    return torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(1))


@every_model
def test_number_of_parameters_is_the_published_one(name):
    model = models.build(name, num_classes=10, image_size=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@every_model
@pytest.mark.parametrize(("size", "num_classes"), [(8, 2), (16, 3), (32, 10), (48, 7)])
def test_logits_have_one_column_per_class(name, size, num_classes):
    if name == "fast" and size < 9:
        pytest.skip("three poolings leave nothing of so few pixels, and parameters say so")
    model = small(name, num_classes, size).eval()
    assert model(images(3, size)).shape == (3, num_classes)


@every_model
def test_every_parameter_gets_a_gradient(name):
    model = small(name)
    model(images()).square().sum().backward()
    learning = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    still = [key for key, parameter in learning.items() if parameter.grad is None or not parameter.grad.any()]
    assert still == []


@every_model
def test_weights_round_trip(name):
    model = small(name)
    model(images())  # moves the running statistics, which are state too
    other = small(name, seed=1).eval()
    assert not torch.equal(other(images()), model.eval()(images()))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), model(images()))


@every_model
def test_logits_of_an_image_do_not_depend_on_its_batch(name):
    model = small(name).eval()
    batch, others = images(4), images(4)
    others[1:] = 5 * torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model(batch)[0], model(others)[0])
    torch.testing.assert_close(model(batch)[0], model(batch[:1])[0], rtol=1e-4, atol=1e-4)


@every_model
def test_activation_maps_are_read_from_a_grid(name):
    model = small(name).eval()
    where, seen = models.cam_target(name, model), []
    where.layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(images())
    activations = where.to_grid(seen[0]) if where.to_grid else seen[0]
    assert activations.ndim == 4
    assert activations.shape[0] == 3
    assert activations.shape[2:] == (GRIDS[name], GRIDS[name])


@every_model
def test_defaults_of_networks_are_those_of_the_parameters(name):
    defaults = inspect.signature(MODELS[name].build).parameters
    for option in set(MODELS[name].options) - {"image_size"}:
        assert defaults[option].default == ModelParams.model_fields[option].default


def test_options_of_the_table_are_those_of_the_parameters():
    known = {option for architecture in MODELS.values() for option in architecture.options}
    assert known - {"image_size"} == set(ModelParams.model_fields) - {"model", "experiment"}


def test_the_first_layer_of_fast_whitens_the_images_it_is_given():
    model = small("fast")
    blurred = nn.functional.avg_pool2d(images(500, 36), 5, stride=1)  # neighbours alike, as in photographs
    models.fit_to_images("fast", model, blurred)
    with torch.no_grad():
        first = model.whiten(blurred)
    out = first.permute(0, 2, 3, 1).reshape(-1, 24)[:, :12]
    covariance = out.T @ out / len(out)
    # The variance is 1, except in directions that hardly vary.
    assert (covariance - torch.diag(covariance.diag())).abs().max() < 0.01
    assert covariance.diag().max() == pytest.approx(1, abs=0.05)
    assert torch.equal(model.whiten.weight[:12], -model.whiten.weight[12:])
    assert not model.whiten.weight.requires_grad


@pytest.mark.parametrize("name", ["resnet18", "resnet9"])
def test_width_scales_every_stage(name):
    def channels(width):
        return [module.out_channels for module in small(name, width=width).modules() if isinstance(module, nn.Conv2d)]

    assert [2 * number for number in channels(4)] == channels(8)


def test_an_untrained_vit_has_logits_of_0():
    model = models.build("vit", num_classes=10, image_size=32)
    assert not model(images()).any()


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_token_of_a_patch_lands_where_the_patch_is(patch_size):
    model, tokens = small("vit", patch_size=patch_size), []
    model.encoder.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0]))
    model(images())
    assert torch.equal(tokens_to_grid(tokens[0]), model.conv_proj(images()))


def test_ultimus_attention_does_not_mix_the_images_of_a_batch():
    torch.manual_seed(0)
    block = UltimusBlock(48).train()
    x = torch.randn(5, 48, requires_grad=True)
    block(x)[0].sum().backward()
    assert x.grad[0].any()
    assert not x.grad[1:].any()


def test_an_ultimus_block_follows_its_formula_image_by_image():
    torch.manual_seed(0)
    block, x = UltimusBlock(48), torch.randn(2, 48)
    for image, result in zip(x, block(x), strict=True):
        query, key, value = block.query(image), block.key(image), block.value(image)
        attention = torch.outer(query, key).softmax(0) / 8**0.5
        torch.testing.assert_close(result, image + block.out(value @ attention))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5", {}, r"no model is called 'resnet5' \(own: resnet18, resnet9, fast, ultimus, vit; or one of"),
        ("resnet18", {"widht": 8}, "no model takes widht .*width"),
        ("vit", {"patch_size": 5}, r"patch_size=5 does not divide image_size=32 \(divisors: 1, 2, 4, 8, 16, 32\)"),
        ("vit", {"dim": 64, "heads": 3}, "heads=3 does not divide dim=64"),
    ],
)
def test_a_wrong_name_or_option_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(name, num_classes=10, image_size=32, **options)


def test_untouched_restores_modes_flags_and_gradients():
    model = small("resnet9").train()
    model.layer1.eval()
    model.head.bias.requires_grad_(False)
    model(images()).sum().backward()
    modes = [module.training for module in model.modules()]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    products = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [each.fp32_precision for each in products]
    with pytest.raises(KeyError), models.untouched(model):
        assert [each.fp32_precision for each in products] == ["ieee", "ieee"]  # not TF32
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        model.zero_grad()
        raise KeyError
    assert [each.fp32_precision for each in products] == before
    assert [module.training for module in model.modules()] == modes
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["head.bias"]
    assert all(parameter.grad is gradients[name] for name, parameter in model.named_parameters())
