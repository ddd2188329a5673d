"""Maps of vision transformers by their attention: relevance to a class, and rollout. Also the attention of Ultimus."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.explain import logits
from pipeline.models import CamTarget, untouched
from pipeline.models.ultimus import Ultimus

WEIGHTS_AT_ONCE = 2**26  # attention weights of a batch, 256 MiB; their gradients and their inputs take as much each


def weights_per_image(model: nn.Module, where: CamTarget, image: Tensor) -> int:
    """The number of attention weights of one image; 0 unless in every block every token attends to every other.

    The ViT and its relatives (DeiT, BEiT, EVA and others) do. A last block may gather all tokens in one, like attention
    pooling. Windows (Swin), grids that shrink and convolutions between blocks mix tokens in other ways, which products
    of attention do not follow. `image` is (1, 3, H, W), as the model takes it.
    """
    with untouched(model), torch.inference_mode(), _recorded() as attentions:
        output = output_of(where.layer, model, image)
    tokens = output.shape[1] if output.ndim == 3 and where.to_grid else 0
    *blocks, last = [tuple(each.shape) for each in attentions] or [()]
    is_plain = all(shape[::2] == (1, tokens) and shape[3:] == (tokens,) for shape in blocks) and last[3:] == (tokens,)
    return sum(each.numel() for each in attentions) if is_plain and last[::2] in {(1, tokens), (1, 1)} else 0


def batch_size(model: nn.Module, where: CamTarget, image: Tensor) -> int:
    """How many images like `image` to process at once, so that their attention fits in memory."""
    return max(1, WEIGHTS_AT_ONCE // weights_per_image(model, where, image))


def output_of(layer: nn.Module, model: nn.Module, images: Tensor) -> Tensor:
    """The output of `layer` when `model` gets `images`."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        model(images)
    finally:
        handle.remove()
    return outputs[0]


def relevance(attentions: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """How much each token (B, N) of the input speaks for a class, by attention and its gradient, block by block.

    Chefer, Gur & Wolf 2021, arXiv:2103.15679: R = R + A R in each block, where A is the mean over the heads of the
    positive part of attention times its gradient.
    """
    evidence = zip(attentions, gradients, strict=True)
    return _traced([(weights * gradient).clamp_min(0).mean(1) for weights, gradient in evidence], _read(gradients[-1]))


def rollout(attentions: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """How much of each token (B, N) of the input reaches the logits, by attention alone. The same for every class.

    Abnar & Zuidema 2020, arXiv:2005.00928: R = (A + 1) R / 2 in each block, where A is the mean over the heads. The
    factor 1/2 is left out, because it scales all tokens alike.
    """
    return _traced([weights.mean(1) for weights in attentions], _read(gradients[-1]))


METHODS: Mapping[str, Callable[[list[Tensor], list[Tensor]], Tensor]] = {
    "attention_relevance": relevance,
    "attention_rollout": rollout,
}


def grids(model: nn.Module, where: CamTarget, images: Tensor, targets: Tensor, method: str) -> Tensor:
    """The map of each image (B, 1, h, w), before scaling. Raises NotFinite and ValueError like `class_maps`."""
    assert where.to_grid is not None
    with untouched(model), torch.inference_mode(False), torch.enable_grad():
        with _recorded() as attentions:
            answers = model(images.detach().clone())
        logits.check(answers, targets)
        wanted = answers.gather(1, targets.to(answers.device)[:, None]).sum()
        gradients = torch.autograd.grad(wanted, attentions, materialize_grads=True)
        tokens = METHODS[method]([each.detach() for each in attentions], list(gradients))
    return where.to_grid(tokens[..., None])


def attention_matrices(model: Ultimus, images: Tensor) -> np.ndarray:
    """How much each value (row) contributes to each result (column) in every block: (B, 4, 8, 8), in [0, 1/sqrt(8)]."""
    with untouched(model), torch.inference_mode():
        return model.attention(images).cpu().numpy()


def _traced(blocks: list[Tensor], read: Tensor) -> Tensor:
    """How much the tokens `read` (N,) have gathered from each token, on average, (B, N), through `blocks` (B, N, N).

    This is the mean of their rows of (1 + A) ... (1 + A), without the 1 for the token itself. The 1 says nothing about
    places, and beside it small numbers lose precision. The blocks come in the order of the forward pass. The loop
    starts at the last block, because rows take less work than the whole product. A block (B, 1, N) gathers all tokens
    in a new token.
    """
    itself = (read / read.sum().clamp_min(1)).expand(len(blocks[0]), 1, -1)
    gathered = torch.zeros_like(itself)
    for block in reversed(blocks):
        passed = (itself + gathered) @ block
        is_pooling = block.shape[1] < block.shape[2]
        itself, gathered = (torch.zeros_like(passed), passed) if is_pooling else (itself, gathered + passed)
    return gathered[:, 0]


def _read(gradient: Tensor) -> Tensor:
    """(N,) float: 1 for the tokens that the logits read, by the gradient (B, heads, N, N) of the last attention.

    The gradient is zero in the rows of all other tokens. The logits read the class token alone or, if the head pools,
    all tokens but that.
    """
    return (gradient != 0).any(dim=3).any(dim=1).any(dim=0).to(gradient.dtype)


@contextmanager
def _recorded() -> Iterator[list[Tensor]]:
    """Inside this context, keeps every attention that torch computes, (B, heads, N, N), as part of the gradient graph.

    torch's own function does not return the attention, and the weights from `MultiheadAttention` are not in the graph.
    """
    kept: list[Tensor] = []

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if is_causal or enable_gqa:  # language models: not every token attends to every other
            kept.append(query.new_empty(0))
            return original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if attn_mask is not None:
            is_mask = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if is_mask else scores + attn_mask
        kept.append(scores.softmax(-1))
        if torch.is_grad_enabled() and not kept[-1].requires_grad:
            kept[-1].requires_grad_()  # the graph starts at the first block
        return kept[-1] @ value

    original, is_fast = functional.scaled_dot_product_attention, torch.backends.mha.get_fastpath_enabled()
    try:
        functional.scaled_dot_product_attention = attend
        torch.backends.mha.set_fastpath_enabled(False)  # the modules' fast path does not call the function
        yield kept
    finally:
        functional.scaled_dot_product_attention = original
        torch.backends.mha.set_fastpath_enabled(is_fast)
