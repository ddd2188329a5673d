import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from pipeline import models
from pipeline.training.update import train_step

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
def test_fused_kernel_is_for_many_tokens_or_fp32(precision, patch_size, image_size, is_fused):
    operations, _ = update(precision, patch_size, image_size)

    assert (FUSED in operations) is is_fused


def test_gradients_are_those_of_fp32_but_for_rounding():
    _, bf16 = update("bf16", patch_size=4)
    _, fp32 = update("fp32", patch_size=4)

    assert torch.nn.functional.cosine_similarity(bf16, fp32, dim=0) > 0.999
    assert torch.linalg.norm(bf16) == pytest.approx(torch.linalg.norm(fp32).item(), rel=0.01)
