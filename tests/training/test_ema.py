"""The moving average of weights equals torch's own, and copies nothing from the CPU to the device."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.training.ema import MovingAverage
from tests.small import network


def torch_average(model):
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)


def train(model):
    """Changes weights, statistics and counts, as an update does."""
    model(torch.randn(4, 3, 8, 8)).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()


def assert_equal(one, other, model):
    """Asserts that both averages are equal, except that ours has the whole numbers of `model`."""
    ours, theirs, current = one.state_dict(), other.state_dict(), model.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        is_count = name != "n_averaged" and not tensor.is_floating_point()
        assert torch.equal(ours[name], current[name.removeprefix("module.")] if is_count else tensor), name


def test_the_average_equals_torch_s_to_the_bit_and_continues_from_its_state():
    model = network()
    ours, theirs = MovingAverage(model, 0.9), torch_average(model)
    for _ in range(6):
        train(model)
        for average in (ours, theirs):
            average.update_parameters(model)
        assert_equal(ours, theirs, model)
    assert not torch.equal(ours.module[0].weight, model[0].weight)
    again = MovingAverage(network(), 0.9)
    again.load_state_dict(theirs.state_dict())
    train(model)
    for average in (again, theirs):
        average.update_parameters(model)
    assert_equal(again, theirs, model)


class Moves(TorchDispatchMode):
    """Counts the tensors that are copied from the CPU to another device."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        target = (kwargs or {}).get("device")
        self.number += target is not None and target != args[0].device
        return function(*args, **(kwargs or {}))


def num_moves(average, model):
    average.update_parameters(model)
    with Moves() as moves:
        average.update_parameters(model)
    return moves.number


def test_an_update_does_not_wait_for_the_device():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).to("meta")
    assert num_moves(MovingAverage(model, 0.9), model) == 0
    assert num_moves(torch_average(model), model) == 2  # if this becomes 0, torch's own average is enough
