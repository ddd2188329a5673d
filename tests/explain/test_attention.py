"""Maps from attention equal the formulas of their papers, computed by hand. Unsuitable networks raise an error."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torchvision.models import SwinTransformer

from pipeline import models
from pipeline.explain import attention, attribution
from pipeline.explain.attribution import class_maps
from pipeline.models import CamTarget
from pipeline.models.stages import head
from tests.explain.test_attribution import TARGETS, hooks, images, small

TIMM_VITS = ("test_vit", "test_vit2", "test_vit_relpos")  # class token, mean of the tokens beside one, mean without one


def rollout(model, pictures):
    classes = torch.zeros(len(pictures), dtype=torch.int64)
    return class_maps(model, models.cam_target("vit", model), pictures, classes, "attention_rollout")


def timm_network(name, size=48):
    torch.manual_seed(0)
    model = models.build(f"timm/{name}", num_classes=4, image_size=size).eval()
    nn.init.normal_(head(model)[1].weight, std=0.5)
    pictures = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    return model, models.cam_target(f"timm/{name}", model), pictures


def relevance_by_hand(attentions, read, logits, prefix, size):
    """Equations 5 and 6 of Chefer et al. 2021, image by image and head by head; the mean of the rows `read`."""
    gradients = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), attentions)
    maps = []
    for i in range(len(logits)):
        tokens = attentions[0].shape[-1]
        relevance = torch.eye(tokens, dtype=attentions[0].dtype)
        for weights, gradient in zip(attentions, gradients, strict=True):
            heads = [(weights[i, j] * gradient[i, j]).clamp(min=0) for j in range(weights.shape[1])]
            relevance = relevance + (sum(heads) / len(heads)) @ relevance
        side = int((tokens - prefix) ** 0.5)
        row = relevance[read].mean(0)[prefix:].reshape(1, 1, side, side).detach()
        upscaled = interpolate(row, (size, size), mode="bilinear")[0, 0]
        maps.append((upscaled - upscaled.min()) / (upscaled.max() - upscaled.min()))
    return torch.stack(maps).numpy()


def test_relevance_is_the_rule_of_its_paper():
    model, where = small("vit")
    model.eval()
    attentions = []
    x = torch.cat([model.class_token.expand(3, -1, -1), model.conv_proj(images()).flatten(2).transpose(1, 2)], 1)
    x = x + model.encoder.pos_embedding
    for block in model.encoder.layers:
        own = block.self_attention
        projected = block.ln_1(x) @ own.in_proj_weight.T + own.in_proj_bias
        query, key, value = projected.unflatten(2, (3, 3, 4)).unbind(2)
        attentions.append(torch.einsum("bihd,bjhd->bhij", query, key).div(4**0.5).softmax(-1))
        x = x + own.out_proj(torch.einsum("bhij,bjhd->bihd", attentions[-1], value).flatten(2))
        x = x + block.mlp(block.ln_2(x))
    logits = model.heads(model.encoder.ln(x)[:, 0])
    torch.testing.assert_close(logits, model(images()))
    expected = relevance_by_hand(attentions, [0], logits, 1, 16)
    maps = class_maps(model, where, images(), TARGETS, "attention_relevance")
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    assert hooks(model) == []


@pytest.mark.parametrize("name", TIMM_VITS)
def test_relevance_of_timm_s_fused_attention_equals_that_of_unfused_attention(name):
    model, where, pictures = timm_network(name)
    maps = class_maps(model, where, pictures, TARGETS, "attention_relevance")
    attentions = []
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
            module.attn_drop.register_forward_hook(lambda *call: attentions.append(call[2]))
    logits = model.double()(pictures.double())
    prefix = model.num_prefix_tokens
    read = [0] if model.global_pool == "token" else slice(prefix, None)
    np.testing.assert_allclose(maps, relevance_by_hand(attentions, read, logits, prefix, 48), atol=1e-4)


def test_relevance_depends_on_the_class_and_rollout_does_not():
    model, where = small("vit")
    one, other = TARGETS, (TARGETS + 1) % 4
    for method, depends in (("attention_relevance", True), ("attention_rollout", False)):
        maps = [class_maps(model, where, images(), targets, method) for targets in (one, other)]
        assert np.allclose(*maps, atol=1e-5) != depends


@pytest.mark.parametrize("method", attention.METHODS)
def test_maps_of_a_divided_batch_equal_those_of_the_whole_batch(monkeypatch, method):
    model, where = small("vit")
    whole = class_maps(model, where, images(), TARGETS, method)
    monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", 1)
    np.testing.assert_allclose(class_maps(model, where, images(), TARGETS, method), whole, atol=1e-4)


@pytest.mark.parametrize("method", attention.METHODS)
def test_maps_leave_the_caller_s_modes_and_torch_itself_unchanged(method):
    model, where = small("vit")
    expected = class_maps(model, where, images(), TARGETS, method)
    assert expected.dtype == np.float32 and expected.min() == 0 and expected.max() == 1
    own = torch.nn.functional.scaled_dot_product_attention
    model.train().requires_grad_(False)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = class_maps(model, where, images(), TARGETS, method)
    np.testing.assert_array_equal(maps, expected)
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="target 4 is not a class"):
        class_maps(model, where, images(), TARGETS + 2, method)
    assert torch.nn.functional.scaled_dot_product_attention is own is scaled_dot_product_attention
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_map_is_blank_if_nothing_speaks_for_the_class():
    model, where = small("vit")
    nn.init.zeros_(head(model)[1].weight)
    assert attribution.is_blank(class_maps(model, where, images(), TARGETS, "auto")).all()


def test_a_diverged_model_is_refused():
    model, where = small("vit")
    head(model)[1].bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        class_maps(model, where, images(), TARGETS, "auto")


def swin():
    model = SwinTransformer([2, 2], 12, [2, 2], [2, 2], [4, 4], num_classes=4)
    return model, CamTarget(model.norm, lambda grid: grid.permute(0, 3, 1, 2)), torch.randn(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("network", "chosen"),
    [
        *(
            (lambda name=name: timm_network(name), "attention_relevance")
            for name in (*TIMM_VITS, "test_vit3", "test_vit4")
        ),
        *(
            (lambda name=name: timm_network(name, 64), "gradcam")
            for name in ("test_coatnet", "test_maxvit", "test_resnet")
        ),
        (lambda: (*small("vit"), images()), "attention_relevance"),
        (lambda: (*small("resnet9"), images()), "gradcam"),
        (lambda: (*small("ultimus"), images()), "gradcam"),
        (swin, "gradcam"),
    ],
)
def test_auto_is_relevance_where_every_token_attends_to_every_other_and_else_gradcam(network, chosen):
    model, where, pictures = network()
    assert attribution.choose("auto", model, where, pictures) == chosen
    maps = class_maps(model, where, pictures, TARGETS[: len(pictures)], "auto")
    np.testing.assert_array_equal(maps, class_maps(model, where, pictures, TARGETS[: len(pictures)], chosen))
    assert not attribution.is_blank(maps).all()
    beside = {"attention_relevance": ["attention_rollout", "gradcam"], "gradcam": []}
    assert attribution.compared(chosen, model, where, pictures) == beside[chosen]
    for method in attention.METHODS if chosen == "gradcam" else ():
        with pytest.raises(ValueError, match=rf"^method={method}: \w+ has no attention .*; choose auto, gradcam"):
            class_maps(model, where, pictures, TARGETS[: len(pictures)], method)


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_rollout_marks_the_patch_that_the_class_token_attends_to(patch_size):
    model = models.build("vit", num_classes=2, image_size=32, patch_size=patch_size, dim=8, depth=1, heads=1)
    with torch.no_grad():
        for parameter in (model.conv_proj.weight, model.encoder.pos_embedding):
            parameter.zero_()
        model.conv_proj.weight[1] = 1  # light shows in feature 1 of its token
        model.class_token[0, 0, 0] = 1
        projection = model.encoder.layers[0].self_attention.in_proj_weight.zero_()
        projection[1, 0] = 50  # the query of the class token asks for feature 1
        projection[8 + 1, 1] = 1  # a token's key is its feature 1
        projection[16:] = torch.eye(8)  # and its value all of them
        nn.init.normal_(head(model)[1].weight)
    side = 32 // patch_size
    for row, column in {(0, 0), (0, side - 1), (side // 2, 0), (side - 1, side // 2)}:
        rows, columns = (slice(patch_size * at, patch_size * (at + 1)) for at in (row, column))
        lit = torch.zeros(1, 3, 32, 32)
        lit[:, :, rows, columns] = 1
        found = rollout(model, lit)[0]
        assert found[rows, columns].mean() > 0.5
        assert found[rows, columns].max() == pytest.approx(1, abs=1e-3)
        assert {tuple(at) for at in np.argwhere(found > 0.9)} <= {
            (y, x) for y in range(32)[rows] for x in range(32)[columns]
        }


def test_rollout_is_the_product_of_the_blocks_attention():
    model, _ = small("vit")
    tokens = []
    handles = [block.ln_1.register_forward_hook(lambda *call: tokens.append(call[2])) for block in model.encoder.layers]
    logits = model.eval()(images())
    for handle in handles:
        handle.remove()
    product = torch.eye(17)
    for block, normed in zip(model.encoder.layers, tokens, strict=True):
        attention = block.self_attention
        query, key, _ = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).unflatten(2, (3, 3, 4)).unbind(2)
        weights = torch.einsum("bihd,bjhd->bhij", query, key).div(4**0.5).softmax(-1).mean(1)
        product = (0.5 * weights + 0.5 * torch.eye(17)) @ product
    upscaled = interpolate(product[:, 0, 1:].reshape(3, 1, 4, 4).detach(), (16, 16), mode="bilinear")[:, 0]
    low, high = upscaled.amin((1, 2), keepdim=True), upscaled.amax((1, 2), keepdim=True)
    expected = (upscaled - low) / (high - low)
    model.train()
    np.testing.assert_allclose(rollout(model, images()), expected, atol=1e-3)
    assert model.training
    assert hooks(model) == []
    assert torch.equal(model.eval()(images()), logits)


def test_attention_matrices_are_those_the_blocks_use():
    model, _ = small("ultimus")
    model.eval()
    inputs = []
    handles = [block.register_forward_hook(lambda *call: inputs.append(call[1][0])) for block in model.blocks]
    model(images())
    for handle in handles:
        handle.remove()
    matrices = attention.attention_matrices(model.train(), images())
    assert model.training
    assert matrices.shape == (3, 4, 8, 8)
    for i, (block, x) in enumerate(zip(model.blocks, inputs, strict=True)):
        np.testing.assert_allclose(matrices[:, i], block.attention(x).detach(), atol=1e-6)
