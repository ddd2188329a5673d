"""Several networks of one architecture that act as one: it gives the mean of their probabilities."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Images (B, 3, H, W) to the log of the mean probability of each class over the members, (B, C) float32.

    Softmax turns this log into the mean (Lakshminarayanan et al. 2017, arXiv:1612.01474). So whatever takes logits can
    take it. The members have the same architecture, sizes and classes.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def seq_length(self) -> int | None:
        """The number of tokens, if the members are vision transformers."""
        return getattr(self.members[0], "seq_length", None)

    def forward(self, images: Tensor) -> Tensor:
        return self.mean([member(images) for member in self.members])

    def mean(self, logits: list[Tensor]) -> Tensor:
        """The result of `forward`, from the logits of each member."""
        logs = torch.stack([each.float().log_softmax(1) for each in logits])
        return logs.logsumexp(0) - math.log(len(logits))


def first_of(model: nn.Module) -> nn.Module:
    """The first member of an ensemble; any other network itself."""
    return model.members[0] if isinstance(model, Ensemble) else model
