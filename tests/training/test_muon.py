"""The stacked Muon against torch's own, which updates one matrix after the other."""

import copy

import pytest
import torch
from torch.optim import Muon
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.training.muon import StackedMuon

SHAPES = [(8, 24), (24, 8), (8, 24), (12, 12), (24, 8), (8, 24)]
SETTINGS = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
VIEWS = {"detach", "transpose", "unbind"}  # operations that launch no kernel


def optimized(kind, shapes=SHAPES):
    """Matrices in two groups of different rates, and their optimizer."""
    random = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=random) for shape in shapes]
    groups = [{"params": matrices[:-1]}, {"params": matrices[-1:], "lr": 0.005}]
    return matrices, kind(groups, **SETTINGS)


def update(matrices, optimizer, numbers):
    """Updates with random gradients; in each update one matrix has none. The rates and momenta change in between."""
    for number in numbers:
        random = torch.Generator().manual_seed(number)
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=random)
        matrices[number % len(matrices)].grad = None
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
            group["momentum"] = 0.85 + 0.01 * number
        optimizer.step()


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):  # an update moves each number by about 0.004
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)


def test_the_stacked_updates_are_those_of_torch_up_to_rounding():
    stacked, optimizer = optimized(StackedMuon)
    expected, reference = optimized(Muon)
    update(stacked, optimizer, range(6))
    update(expected, reference, range(6))
    assert_close(stacked, expected)
    for one, other in zip(stacked, expected, strict=True):
        torch.testing.assert_close(optimizer.state[one], reference.state[other])


@pytest.mark.parametrize("kinds", [(Muon, StackedMuon), (StackedMuon, Muon)])
def test_each_kind_continues_from_the_state_of_the_other(kinds):
    matrices, optimizer = optimized(kinds[0])
    update(matrices, optimizer, range(3))
    copies, restored = optimized(kinds[1])
    for one, other in zip(copies, matrices, strict=True):
        one.copy_(other)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    update(matrices, optimizer, range(3, 6))
    update(copies, restored, range(3, 6))
    assert_close(copies, matrices)


class Operations(TorchDispatchMode):
    """Counts operations."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func.namespace == "aten" and func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


def test_more_matrices_of_known_shapes_need_no_more_operations():
    def operations(shapes):
        matrices, optimizer = optimized(StackedMuon, shapes)
        update(matrices, optimizer, range(1))  # the first update creates the averages
        for matrix in matrices:
            matrix.grad = torch.ones_like(matrix)
        with Operations() as counted:
            optimizer.step()
        return counted.number

    assert operations(SHAPES) == operations([*SHAPES[:-1] * 5, SHAPES[-1]]) <= 4 * 24
