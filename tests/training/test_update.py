"""One update: its operations, precisions, parts of a batch, and limits of the gradient."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pipeline import models
from pipeline.training import optimizers
from pipeline.training.update import train_step
from tests.training.test_optimizers import network

FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


def update(precision, patch_size, image_size=32):
    """The operations of one update of a small ViT, and its gradients."""
    torch.manual_seed(0)
    model = models.build("vit", num_classes=3, image_size=image_size, patch_size=patch_size, dim=32, depth=1, heads=2)
    torch.nn.init.normal_(model.heads.head.weight)
    images, labels = torch.randn(4, 3, image_size, image_size), torch.tensor([0, 1, 2, 0])
    gradients = []
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad.clone() for p in model.parameters()))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        train_step(model, images, labels, optimizer, precision, 0.0)
    return {event.key for event in profiler.key_averages()}, torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize(
    ("precision", "patch_size", "image_size", "is_fused"),
    [("bf16", 4, 32, False), ("bf16", 4, 64, True), ("fp32", 4, 32, True)],
)
def test_the_fused_attention_kernel_is_used_for_many_tokens_or_fp32(precision, patch_size, image_size, is_fused):
    operations, _ = update(precision, patch_size, image_size)

    assert (FUSED in operations) is is_fused


def test_gradients_in_bf16_are_those_of_fp32_up_to_rounding():
    _, bf16 = update("bf16", patch_size=4)
    _, fp32 = update("fp32", patch_size=4)

    assert torch.nn.functional.cosine_similarity(bf16, fp32, dim=0) > 0.999
    assert torch.linalg.norm(bf16) == pytest.approx(torch.linalg.norm(fp32).item(), rel=0.01)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_fp16_scales_its_gradients_and_drops_an_update_whose_gradients_overflow(name):
    def trained(precision, factor=1.0, scale=2.0**10):
        """The change of each weight in one update whose loss is very small, and the scale after it."""
        model = network()
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        optimizer = optimizers.build(name, model, lr=0.1, momentum=0.0, weight_decay=0.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=precision == "fp16")
        images, labels = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4
        train_step(lambda x: factor * model(x), images, labels, optimizer, precision, 0.0, scaler=scaler)
        return torch.cat([p.detach().flatten() for p in model.parameters()]) - before, scaler.get_scale()

    expected, _ = trained("fp32")
    change, scale = trained("fp16")
    # The others divide by the size of each gradient, so that the rounding of one that is almost zero decides its sign.
    assert torch.nn.functional.cosine_similarity(change, expected, dim=0) > (0.999 if name == "sgd" else 0.8)
    assert torch.linalg.norm(change) == pytest.approx(torch.linalg.norm(expected).item(), rel=0.02)
    assert scale == 2.0**10
    dropped, scale = trained("fp16", scale=2.0**30)
    assert dropped.abs().max() == 0 and scale == 2.0**29
    if name == "sgd":
        unscaled, _ = trained("fp16", factor=1e-6, scale=1.0)
        scaled, _ = trained("fp16", factor=1e-6, scale=2.0**16)
        tiny, _ = trained("fp32", factor=1e-6)
        lost, kept = (torch.linalg.norm(each - tiny) / torch.linalg.norm(tiny) for each in (unscaled, scaled))
        assert kept < 0.05 < 0.1 < lost


def changed(images, labels, weights=None, smoothing=0.0, **options):
    """The change of each weight in one update by SGD with rate 1, the loss and the number correct."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    loss, num_correct = train_step(model, images, labels, optimizer, "fp32", smoothing, weights, **options)
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before, loss, num_correct


@pytest.mark.parametrize("is_soft", [False, True])
@pytest.mark.parametrize("number", [7, 8])
def test_accumulated_parts_of_a_batch_make_the_update_of_the_whole(number, is_soft):
    images = torch.randn(number, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(number) % 3
    targets = torch.nn.functional.one_hot(labels, 3) * 0.7 + 0.1 if is_soft else labels
    weights = torch.tensor([3.0, 1.0, 0.2])
    whole, parts = (changed(images, targets, weights, 0.1, accumulate=each) for each in (1, 3))
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)


def test_a_small_last_batch_has_fewer_parts_so_that_norms_have_two_images():
    sizes = []
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    train_step(model, torch.randn(5, 3, 2, 2), torch.arange(5) % 3, optimizer, "fp32", 0.0, accumulate=4)
    assert sizes == [3, 2]


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_clip_grad_norm_limits_the_norm_of_the_gradient(name):
    norms = []
    model = network()
    optimizer = optimizers.build(name, model, lr=0.1, momentum=0.0, weight_decay=0.0)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            torch.nn.utils.get_total_norm([p.grad for g in optimizer.param_groups for p in g["params"]])
        )
    )
    train_step(model, images, labels, optimizer, "fp32", 0.0)
    train_step(model, images, labels, optimizer, "fp32", 0.0, clip_grad_norm=0.01)
    assert norms[-1].item() == pytest.approx(0.01, rel=1e-3)
    if name != "muon":  # without a limit, muon's matrices get their gradients only after this hook
        assert norms[0] > 0.02
