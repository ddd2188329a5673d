"""SGD, AdamW and Muon by name, without weight decay on norms and biases."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Muon, Optimizer

from pipeline.models.stages import stages
from pipeline.training.muon import StackedMuon


def build(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    bias_lr: float = 1.0,
    normalise_weights: bool = False,
    lr_decay: float = 1.0,
) -> Optimizer:
    """An optimizer for the parameters of `model` that learn. Raises KeyError for an unknown name.

    `momentum` is beta1 for AdamW. Norms and biases learn at `bias_lr` times the rate of all others. Each stage learns
    at `lr_decay` times the rate of the next stage (Howard and Ruder 2018, arXiv:1801.06146, section 3.2). Schedules
    keep this ratio: the `rate_factor` of a group. `normalise_weights` applies to the kernels of Muon.
    """
    return OPTIMIZERS[name](model, Settings(lr, momentum, weight_decay, bias_lr, normalise_weights, lr_decay))


def collect(optimizer: Optimizer) -> None:
    """Call it after a backward pass and before anything that reads or changes the gradients of `optimizer`."""
    if isinstance(optimizer, MuonWithAdamW):
        optimizer.collect()


@dataclass(frozen=True)
class Settings:
    """The settings of any optimizer; `build` explains them."""

    lr: float
    momentum: float
    weight_decay: float
    bias_lr: float
    normalise_weights: bool
    lr_decay: float


class MuonWithAdamW(Optimizer):
    """Muon for the hidden matrices and convolution kernels, and AdamW for the rest, as one optimizer.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes the matrix of an update orthogonal.
    torch's Muon takes only matrices, so it gets each kernel as its (out, in x h x w) view. The first and last layer,
    embeddings, norms and biases go to AdamW, as the authors of Muon advise. Queries, keys and values are three matrices
    in torch's MultiheadAttention, and one where a single linear layer computes them. Muon's updates are scaled to the
    size of AdamW's (arXiv:2502.16982), so that one rate fits both. A schedule cycles only the momentum of Muon; AdamW's
    beta1 stays. With `normalise_weights`, each kernel is scaled to the norm sqrt(out) before an update, as in Jordan's
    record for CIFAR-10. If a norm layer follows, no rate is then too large, and its effect does not shrink.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        lr, momentum = settings.lr, settings.momentum
        parts = _parts(model)
        hidden = {id(kernel) for kernel, _ in parts}
        rest = [parameter for parameter in _learning(model) if id(parameter) not in hidden]
        factors = _factors(model, settings.lr_decay)
        self._normalise = settings.normalise_weights
        self._is_collected = False  # the matrices have the gradients of this update
        self._parts = parts
        self._matrices = [_as_matrix(kernel.detach())[rows] for kernel, rows in parts]
        kind = StackedMuon if any(matrix.device.type != "cpu" for matrix in self._matrices) else Muon
        self._muon = kind(
            [
                {"params": some, "lr": lr * factor, "rate_factor": factor}
                for factor, some in _by_factor(self._matrices, [factors.get(id(kernel), 1.0) for kernel, _ in parts])
            ],
            lr=lr,
            momentum=momentum,
            weight_decay=settings.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = _fused_on_gpus(AdamW, _groups(rest, settings, factors), lr=lr, betas=(momentum, 0.999))
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {"lr": lr, "momentum": momentum})
        # Both optimizers share this one list of groups, so they read the rates that a schedule writes here.
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]

    @torch.no_grad()
    def collect(self) -> None:
        """Gives each matrix the gradient of its kernel, so that the gradients of `param_groups` are complete."""
        for (kernel, rows), matrix in zip(self._parts, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad, like=kernel)[rows]
        self._is_collected = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        if not self._is_collected:
            self.collect()
        self._is_collected = False
        learning = [matrix for matrix in self._matrices if matrix.grad is not None]
        if self._normalise and learning:
            factors = torch._foreach_reciprocal(torch._foreach_norm(learning))
            torch._foreach_mul_(factors, [len(matrix) ** 0.5 for matrix in learning])
            torch._foreach_mul_(learning, factors)
        self._muon.step()
        self._adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of the kernels and of the rest."""
        for parameter in [*(kernel for kernel, _ in self._parts), *self._matrices]:
            parameter.grad = None
        self._adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both optimizers, under `muon` and `adamw`."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads the result of `state_dict`."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]


def _sgd(model: nn.Module, settings: Settings) -> Optimizer:
    momentum = settings.momentum
    groups = _groups(_learning(model), settings, _factors(model, settings.lr_decay))
    return _fused_on_gpus(SGD, groups, lr=settings.lr, momentum=momentum, nesterov=momentum > 0)


def _adamw(model: nn.Module, settings: Settings) -> Optimizer:
    groups = _groups(_learning(model), settings, _factors(model, settings.lr_decay))
    return _fused_on_gpus(AdamW, groups, lr=settings.lr, betas=(settings.momentum, 0.999))


def _fused_on_gpus(kind: type[SGD] | type[AdamW], groups: list[dict[str, Any]], **settings: Any) -> SGD | AdamW:
    """An optimizer that updates all parameters in one kernel if they are on a GPU.

    It stays so when it loads a state from another device.
    """
    fused = {"fused": True} if any(p.is_cuda for group in groups for p in group["params"]) else {"fused": None}
    optimizer = kind(groups, **settings, **fused)
    optimizer.register_load_state_dict_pre_hook(
        lambda _, state: {**state, "param_groups": [{**group, **fused} for group in state["param_groups"]]}
    )
    return optimizer


OPTIMIZERS: dict[str, Callable[[nn.Module, Settings], Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "muon": MuonWithAdamW,
}


def _learning(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _factors(model: nn.Module, lr_decay: float) -> dict[int, float]:
    """By id, the factor on the rate of each parameter of a stage; empty if all factors are 1."""
    if lr_decay == 1:
        return {}
    from_the_head = reversed(stages(model))
    return {id(p): lr_decay**away for away, stage in enumerate(from_the_head, 1) for p in stage.parameters}


def _by_factor(tensors: Iterable[Tensor], factors: Iterable[float]) -> list[tuple[float, list[Tensor]]]:
    """The tensors of each factor, the largest factor first."""
    found: dict[float, list[Tensor]] = {}
    for tensor, factor in zip(tensors, factors, strict=True):
        found.setdefault(factor, []).append(tensor)
    return sorted(found.items(), reverse=True, key=lambda item: item[0])


def _groups(parameters: list[nn.Parameter], settings: Settings, factors: Mapping[int, float]) -> list[dict[str, Any]]:
    groups = []
    for factor, some in _by_factor(parameters, [factors.get(id(parameter), 1.0) for parameter in parameters]):
        groups += [
            _group([p for p in some if p.ndim > 1], settings.lr, factor, settings.weight_decay),
            _group([p for p in some if p.ndim <= 1], settings.lr, factor * settings.bias_lr, 0.0),
        ]
    return [group for group in groups if group["params"]]


def _group(parameters: list[Tensor], lr: float, factor: float, weight_decay: float) -> dict[str, Any]:
    return {"params": parameters, "weight_decay": weight_decay, "rate_factor": factor, "lr": lr * factor}


def _parts(model: nn.Module) -> list[tuple[nn.Parameter, slice]]:
    """The hidden matrices: each is a weight that learns and the slice of its rows that form one matrix."""
    layers = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    # Tables, such as the tables of relative positions, also have two dimensions, but they multiply nothing.
    rows = {id(weight): [slice(None)] for weight in layers[1:-1]}
    for attention in attentions:
        dim = attention.embed_dim
        rows[id(attention.in_proj_weight)] = [slice(start, start + dim) for start in (0, dim, 2 * dim)]
    return [(parameter, part) for parameter in _learning(model) for part in rows.get(id(parameter), [])]


def _as_matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    # Flattens in memory order, so that the matrix of a channels_last kernel is also a view.
    like = tensor if like is None else like
    if tensor.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.flatten(1)
