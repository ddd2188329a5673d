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
    *,
    accumulate: int = 1,
    clip_grad_norm: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """One update of the network `forward`. Returns mean loss and number correct, both still on the device.

    `targets` are labels (B,) or, from mixup and cutmix, probabilities (B, C); the largest probability is the label.
    `class_weights` (C,) weigh each image in the loss, by its label. fp16 needs a `scaler`: without one, small gradients
    become zero. It drops an update whose gradients overflow. With several `ranks`, `images` are this rank's share of a
    batch of `whole_size` images, and the results are of the whole batch. `accumulate` parts of the images go through
    the network in turn, before the one update. The norm of the gradient is at most `clip_grad_norm`, if that is not 0.
    """
    tokens = getattr(forward, "seq_length", None)  # only torchvision's vision transformers have it, compiled or not
    whole_size = len(images) if whole_size is None else whole_size
    # All ranks need the same number of parts, and a norm needs two images.
    num_parts = min(accumulate, max(1, whole_size // ranks.size // 2))
    weight = _weight(targets, class_weights)
    rank_factor = ranks.part_of_mean(weight, whole_size if isinstance(weight, int) else None)
    mean, num_correct = images.new_zeros(()), images.new_zeros((), dtype=torch.int64)
    parts = zip(images.tensor_split(num_parts), targets.tensor_split(num_parts), strict=True)
    for number, (part_images, part_targets) in enumerate(parts, 1):
        is_last = number == num_parts
        # Ranks exchange gradients once, with the last part.
        exchange = nullcontext() if is_last else getattr(forward, "no_sync", nullcontext)()
        # The context also covers the backward pass, which may compute the attention again.
        with exchange, attention_kernel(tokens, images.device, precision):
            with autocast(images.device, precision):
                logits = forward(part_images)
            loss = cross_entropy(logits.float(), part_targets, label_smoothing, class_weights)
            if num_parts > 1 or ranks.size > 1:
                loss = loss * (_weight(part_targets, class_weights) / weight * rank_factor)
            scaler.scale(loss).backward()
        mean = mean + loss.detach()
        labels = part_targets if part_targets.ndim == 1 else part_targets.argmax(1)
        num_correct = num_correct + (logits.detach().argmax(1) == labels).sum()
    optimizers.collect(optimizer)
    if clip_grad_norm:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip_grad_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return ranks.mean(mean), ranks.sum(num_correct)


def _weight(targets: Tensor, class_weights: Tensor | None) -> Tensor | int:
    """The weight of images with these targets in the mean loss."""
    return len(targets) if class_weights is None or targets.ndim > 1 else class_weights[targets].sum()


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
