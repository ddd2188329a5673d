"""One update of a network, and its predictions."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from pipeline.training import optimizers
from pipeline.training.device import autocast
from pipeline.training.loss import cross_entropy
from pipeline.training.ranks import ALONE, Ranks

UNSCALED = GradScaler(enabled=False)
FEW_TOKENS = 145  # up to here, plain products are faster; 197 tokens are faster in the fused kernel (docs/speed.md)


def train_step(
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor,
    optimizer: Optimizer,
    precision: str,
    label_smoothing: float,
    class_weights: Tensor | None = None,
    scaler: GradScaler = UNSCALED,
    ranks: Ranks = ALONE,
    whole_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """One update of the network `forward`. Returns mean loss and number correct, both still on the device.

    `targets` are labels (B,) or, from mixup and cutmix, probabilities (B, C); the largest probability is the label.
    `class_weights` (C,) weigh each image in the loss, by its label. fp16 needs a `scaler`: without one, small gradients
    become zero. It drops an update whose gradients overflow. With several `ranks`, `images` are this rank's share of a
    batch of `whole_size` images, and the results are of the whole batch.
    """
    tokens = getattr(forward, "seq_length", None)  # only torchvision's vision transformers have it, compiled or not
    with autocast(images.device, precision), attention_kernel(tokens, images.device, precision):
        logits = forward(images)
    loss = cross_entropy(logits.float(), targets, label_smoothing, class_weights)
    if ranks.size > 1:
        is_weighted = class_weights is not None and targets.ndim == 1
        weight = class_weights[targets].sum() if is_weighted else len(images)  # type: ignore[index]
        loss = loss * ranks.part_of_mean(weight, None if is_weighted else whole_size)
    scaler.scale(loss).backward()
    optimizers.collect(optimizer)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    num_correct = (logits.detach().argmax(1) == labels).sum()
    return ranks.mean(loss.detach()), ranks.sum(num_correct)


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: str = "fp32"
) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float32 and labels (N,) of all batches, on the CPU. The mode of every module stays the same."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        with autocast(images.device, precision):
            logits.append(model(images).float())
        labels.append(targets)
    for module, training in modes:
        module.training = training
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def attention_kernel(tokens: int | None, device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Plain products for few `tokens` in bf16 on a CPU; otherwise torch's own choice.

    Torch's fused kernel is made for long sequences. With few tokens, both passes in bf16 take up to 2.7 times as long.
    The products are computed in fp32, and keep their (tokens, tokens) weights until the backward pass.
    """
    if tokens is not None and tokens <= FEW_TOKENS and device.type == "cpu" and precision == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
