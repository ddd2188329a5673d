"""Maps of a class by the methods of grad-cam: their place, their range, and what they leave unchanged."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from pipeline import models
from pipeline.explain import attribution
from pipeline.explain.attribution import CAMS, class_maps
from pipeline.explain.randomisation import randomised_copy
from pipeline.models import MODELS, CamTarget
from pipeline.models.ensemble import Ensemble

TARGETS = torch.tensor([0, 1, 2])

every_method = pytest.mark.parametrize("method", CAMS)


class TopLeft(nn.Module):
    """Sees only the top-left quadrant. Light there speaks for class 0 and against class 1."""

    def __init__(self):
        super().__init__()
        self.colours = nn.Conv2d(3, 4, 1)
        self.look = nn.ZeroPad2d((0, 8, 0, 8))
        self.head = nn.Linear(4, 2)
        nn.init.uniform_(self.colours.weight, 0.5, 1)
        nn.init.zeros_(self.colours.bias)
        self.head.weight.data = torch.tensor([[1.0], [-1.0]]).expand(2, 4).clone()

    def forward(self, images):
        return self.head(self.look(self.colours(images[:, :, :8, :8]).relu()).mean(dim=(2, 3)))


def top_left(seed=0):
    torch.manual_seed(seed)
    model = TopLeft()
    return model, CamTarget(model.look), torch.rand(3, 3, 16, 16)


def small(name, patch_size=4):
    """A narrow network as after some training: its statistics have moved, and no head is zero."""
    torch.manual_seed(0)
    model = models.build(
        name, num_classes=4, image_size=size_of(name), width=8, patch_size=patch_size, dim=12, depth=2, heads=3
    )
    nn.init.normal_(list(model.parameters())[-2])
    model(images(name))
    return model, models.cam_target(name, model)


def size_of(name):
    """Image side in px. At 16 px, the poolings of `fast` leave a grid of one cell, whose map is blank."""
    return 32 if name == "fast" else 16


def images(name=""):
    return torch.randn(3, 3, size_of(name), size_of(name), generator=torch.Generator().manual_seed(1))


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks]


@every_method
@pytest.mark.parametrize("seed", range(3))
def test_map_lies_where_the_model_looks(method, seed):
    model, where, bright = top_left(seed)
    maps = class_maps(model, where, bright, torch.zeros(3, dtype=torch.int64), method)
    assert not attribution.is_blank(maps).any()
    assert maps[:, :8, :8].sum() == pytest.approx(maps.sum())


@every_method
@pytest.mark.parametrize("name", MODELS)
def test_maps_are_float32_from_0_to_1_at_the_size_of_the_images(name, method):
    model, where = small(name)
    maps = class_maps(model, where, images(name), TARGETS, method)
    assert maps.shape == (3, size_of(name), size_of(name))
    assert maps.dtype == np.float32
    assert maps.min() == 0
    assert maps.max() == pytest.approx(1, abs=1e-3)
    assert maps.max() <= 1


@every_method
@pytest.mark.parametrize("name", ["resnet9", "vit"])
def test_maps_leave_the_model_unchanged(name, method):
    model, where = small(name)
    model.train()
    model(images()).sum().backward()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    logits = model.eval()(images())
    model.train()
    class_maps(model, where, images(), TARGETS, method)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(parameter.grad, gradients[key]) for key, parameter in model.named_parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert hooks(model) == []
    assert torch.equal(model.eval()(images()), logits)


@pytest.mark.parametrize("name", MODELS)
def test_gradcam_is_the_formula_of_its_paper(name):
    model, where = small(name)
    seen = []
    handle = where.layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model.eval()(images(name))
    handle.remove()
    gradients = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), seen[0])[0]
    grid = where.to_grid or (lambda x: x)
    weights = grid(gradients).mean(dim=(2, 3), keepdim=True)
    cam = (weights * grid(seen[0])).sum(1, keepdim=True).relu().detach()
    cam = interpolate(cam, (size_of(name), size_of(name)), mode="bilinear")[:, 0]
    cam = cam - cam.amin((1, 2), keepdim=True)
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-7)
    maps = class_maps(model, where, images(name), TARGETS, "gradcam")
    assert not attribution.is_blank(maps).all()
    np.testing.assert_allclose(maps, cam.numpy(), atol=2e-3)


@every_method
def test_map_of_an_image_does_not_depend_on_its_batch(method):
    model, where = small("resnet18")
    together = class_maps(model, where, images(), TARGETS, method)
    apart = [class_maps(model, where, images()[i : i + 1], TARGETS[i : i + 1], method)[0] for i in range(3)]
    np.testing.assert_allclose(together, apart, atol=1e-3)


def test_caller_may_be_in_inference_mode_and_under_autocast():
    model, where = small("vit")
    expected = class_maps(model, where, images(), TARGETS, "gradcam")
    model.requires_grad_(False)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        maps = class_maps(model, where, images(), TARGETS, "gradcam")
    np.testing.assert_array_equal(maps, expected)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "layercam", "hirescam"])
def test_map_without_positive_evidence_is_blank(method):
    model, where, bright = top_left()
    maps = class_maps(model, where, bright, torch.tensor([0, 1, 0]), method)
    assert attribution.is_blank(maps).tolist() == [False, True, False]
    assert not maps[1].any()


@every_method
@pytest.mark.parametrize("wrong", [-1, 4])
def test_class_without_a_logit_is_refused(method, wrong):
    model, where = small("resnet9")
    with pytest.raises(ValueError, match=f"target {wrong} is not a class of a model with 4 logits"):
        class_maps(model, where, images(), torch.tensor([0, wrong, 1]), method)
    assert hooks(model) == []
    assert model.training


def test_fewer_targets_than_images_are_refused():
    model, where = small("resnet9")
    with pytest.raises(ValueError, match="2 targets for 3 images"):
        class_maps(model, where, images(), TARGETS[:2], "gradcam")


def test_an_unknown_method_is_refused_with_the_known_ones():
    model, where = small("resnet9")
    with pytest.raises(ValueError, match=r"called 'cam' \(methods: auto, .*gradcam, "):
        class_maps(model, where, images(), TARGETS, "cam")


def test_layer_that_yields_no_grid_is_named_with_its_shape():
    model, where = small("vit")
    with pytest.raises(ValueError, match=r"layer encoder.layers.encoder_layer_1.ln_1 yields \(3, 17, 12\)"):
        class_maps(model, CamTarget(where.layer), images(), TARGETS, "gradcam")
    assert hooks(model) == []


def test_an_error_of_the_package_is_raised_and_leaves_no_hooks(monkeypatch):
    def fail(*_):
        raise IndexError("the package would print this and continue")

    model, where = small("resnet9")
    monkeypatch.setattr(CAMS["gradcam"], "get_cam_weights", fail)
    # The traceback keeps all variables alive, so that no hook is removed by accident.
    with pytest.raises(IndexError) as caught:
        class_maps(model, where, images(), TARGETS, "gradcam")
    assert hooks(model) == []
    assert caught.traceback


def test_diverged_model_is_refused():
    model, where = small("resnet9")
    model.head.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        class_maps(model, where, images(), TARGETS, "gradcam")


@pytest.mark.filterwarnings("ignore:invalid value")
def test_map_that_is_not_finite_is_refused():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()  # finite at zero, its gradient is not

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), Root(), nn.Flatten(), nn.Linear(4 * 16 * 16, 4))
    model[0].weight.data.zero_()
    model[0].bias.data.zero_()
    with pytest.raises(ValueError, match="gradcam gives maps that are not finite for images"):
        class_maps(model, CamTarget(model[1]), images(), TARGETS, "gradcam")


@pytest.mark.parametrize(("name", "size"), [("resnet18", 2), ("resnet9", 2), ("ultimus", 16), ("vit", 4)])
def test_grid_size_is_that_of_the_map_before_scaling(name, size):
    model, where = small(name)
    assert attribution.grid_size(model, where, images()) == (size, size)
    assert hooks(model) == []


@pytest.mark.parametrize(("name", "method"), [("resnet9", "gradcam"), ("vit", "attention_relevance")])
def test_the_map_of_an_ensemble_is_the_mean_of_its_members_maps(name, method):
    model, where = small(name)
    other = randomised_copy(model, 1)
    both = Ensemble([model, other])
    assert attribution.choose("auto", both, models.cam_target(name, both), images(name)) == method
    maps = [class_maps(each, models.cam_target(name, each), images(name), TARGETS, method) for each in (model, other)]
    mean = np.mean(maps, axis=0)
    expected = mean / mean.max(axis=(1, 2), keepdims=True)
    found = class_maps(both, models.cam_target(name, both), images(name), TARGETS, method)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert attribution.grid_size(both, where, images(name)) == attribution.grid_size(model, where, images(name))
