"""SGD, AdamW and Muon by name, with no weight decay on norms and biases."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer


def build(name: str, model: nn.Module, *, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    """The optimizer of `model`'s parameters; `momentum` is beta1 for AdamW. Raises KeyError for an unknown name."""
    return OPTIMIZERS[name](model, lr, momentum, weight_decay)


class MuonWithAdamW(Optimizer):
    """Muon for the hidden matrices and convolution kernels, AdamW for the rest, as one optimizer.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) orthogonalises an update's matrix. torch's
    takes matrices only, so it is handed each kernel as its (out, in x h x w) view. First and last layer, embeddings,
    norms and biases go to AdamW, as its authors advise. Muon's updates are scaled to AdamW's size (arXiv:2502.16982),
    so that one rate serves both.
    """

    def __init__(self, model: nn.Module, lr: float, momentum: float, weight_decay: float) -> None:
        kernels = _hidden_weights(model)
        hidden = {id(kernel) for kernel in kernels}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in hidden]
        self._kernels = kernels
        self._matrices = [_as_matrix(kernel.detach()) for kernel in kernels]
        self._muon = Muon(
            self._matrices,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = AdamW(_decay_groups(rest, weight_decay), lr=lr, betas=(momentum, 0.999))
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {"lr": lr, "momentum": momentum})
        # One list of groups, shared: what a schedule writes here, both optimizers read.
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter with a gradient."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad, like=kernel)
        self._muon.step()
        self._adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of kernels and rest."""
        for parameter in [*self._kernels, *self._matrices]:
            parameter.grad = None
        self._adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both, under `muon` and `adamw`."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]


def _sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    return SGD(_decay_groups(model.parameters(), weight_decay), lr=lr, momentum=momentum, nesterov=momentum > 0)


def _adamw(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    return AdamW(_decay_groups(model.parameters(), weight_decay), lr=lr, betas=(momentum, 0.999))


OPTIMIZERS: dict[str, Callable[[nn.Module, float, float, float], Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": MuonWithAdamW,
}


def _decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _hidden_weights(model: nn.Module) -> list[nn.Parameter]:
    layers = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    ends = {id(layers[0]), id(layers[-1])}
    return [p for p in model.parameters() if p.ndim in (2, 4) and id(p) not in ends]


def _as_matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    # Flattened in memory order, so that the matrix of a channels_last kernel is a view of it too.
    like = tensor if like is None else like
    if tensor.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)
