"""Optimizers: which parameters they update, with which decay and rate, and how they continue."""

import copy

import pytest
import torch
from torch import nn

from pipeline.training import optimizers, schedules


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 16),
        nn.Linear(16, 4),
    )


def train(model, optimizer, steps=30):
    torch.manual_seed(1)
    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_optimizer_learns_and_moves_every_parameter(name, memory_format):
    model = network().to(memory_format=memory_format)
    before = copy.deepcopy(model.state_dict())
    losses = train(model, optimizers.build(name, model, lr=0.1, momentum=0.9, weight_decay=0.0))
    assert losses[-1] < 0.9 * losses[0]
    for key, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[key]), key


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_norms_and_biases_do_not_decay(name):
    model = network()
    optimizer = optimizers.build(name, model, lr=0.1, momentum=0.9, weight_decay=0.5)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0)


def test_muon_updates_only_hidden_kernels_and_matrices():
    model = network()
    optimizer = optimizers.build("muon", model, lr=0.02, momentum=0.9, weight_decay=0.0)
    shapes = [tuple(p.shape) for p in optimizer.param_groups[0]["params"]]
    assert shapes == [(16, 72), (16, 16)]
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == sum(
        p.numel() for p in model.parameters()
    )


def test_muon_updates_queries_keys_and_values_as_separate_matrices():
    attention = nn.MultiheadAttention(8, 2)
    model = nn.Sequential(nn.Linear(8, 8), attention, nn.Linear(8, 8))
    optimizer = optimizers.build("muon", model, lr=0.1, momentum=0.0, weight_decay=0.0)
    before = attention.in_proj_weight.detach().clone()
    attention.in_proj_weight.grad = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    moved = (attention.in_proj_weight.detach() - before).split(8)
    for each in moved:  # an orthogonal matrix, roughly, at AdamW's scale
        strengths = torch.linalg.svdvals(each / (0.1 * 0.2 * 8**0.5))
        assert strengths.min() > 0.5 and strengths.max() < 1.5


def test_muon_leaves_tables_to_adamw():
    model = network()
    model.register_parameter("relative_positions", nn.Parameter(torch.randn(49, 3)))
    optimizer = optimizers.build("muon", model, lr=0.02, momentum=0.9, weight_decay=0.0)
    assert (49, 3) not in [tuple(p.shape) for p in optimizer.param_groups[0]["params"]]
    assert (49, 3) in [tuple(p.shape) for group in optimizer.param_groups[1:] for p in group["params"]]


def test_muon_s_update_of_a_kernel_does_not_depend_on_its_memory_format():
    plain, last = network(), network().to(memory_format=torch.channels_last)
    for model in (plain, last):
        train(model, optimizers.build("muon", model, lr=0.02, momentum=0.9, weight_decay=0.0), steps=1)
    torch.testing.assert_close(plain[3].weight, last[3].weight.contiguous(), atol=2e-3, rtol=0)  # of 2e-2


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_an_optimizer_continues_from_a_restored_state_to_the_bit(name):
    model = network()
    optimizer = optimizers.build(name, model, lr=0.02, momentum=0.9, weight_decay=0.01)
    train(model, optimizer, steps=3)
    twin = copy.deepcopy(model)
    restored = optimizers.build(name, twin, lr=0.5, momentum=0.1, weight_decay=0.0)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(model, optimizer, steps=3) == train(twin, restored, steps=3)


def test_a_schedule_reaches_both_halves_of_muon():
    from pipeline.training.schedules import one_cycle

    optimizer = optimizers.build("muon", network(), lr=0.02, momentum=0.9, weight_decay=0.0)
    schedule = one_cycle(
        optimizer,
        max_lr=1.0,
        total_steps=10,
        pct_start=0.3,
        div_factor=10,
        final_div_factor=10,
        anneal="linear",
        momentum=0.9,
    )
    optimizer.step()
    schedule.step()
    schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {1.0}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_normalised_kernels_keep_their_norm(memory_format):
    model = network().to(memory_format=memory_format)
    settings = {"lr": 1e-6, "momentum": 0.6, "weight_decay": 0.0}
    train(model, optimizers.build("muon", model, normalise_weights=True, **settings), steps=2)
    assert model[3].weight.norm().item() == pytest.approx(16**0.5, rel=1e-3)
    assert model[6].weight.norm().item() == pytest.approx(16**0.5, rel=1e-3)
    assert model[0].weight.norm().item() != pytest.approx(8**0.5, rel=1e-3)  # Muon does not update the first layer


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_rates_of_biases_keep_their_ratio_through_a_cycle_and_a_ladder(name):
    def rates(optimizer):
        return {group["weight_decay"] > 0: group["lr"] for group in optimizer.param_groups}

    optimizer = optimizers.build(name, network(), lr=0.1, momentum=0.9, weight_decay=0.5, bias_lr=8.0)
    cycle = {"pct_start": 0.3, "div_factor": 25, "final_div_factor": 100, "anneal": "cos", "momentum": 0.9}
    for schedule in (
        schedules.one_cycle(optimizer, max_lr=0.2, total_steps=10, **cycle),
        schedules.ladder(optimizer, min_lr=1e-3, max_lr=1, num_steps=10),
    ):
        for _ in range(9):
            assert rates(optimizer)[False] == pytest.approx(8 * rates(optimizer)[True])
            optimizer.step()
            schedule.step()
    assert rates(optimizer)[True] == pytest.approx(1)


def test_normalising_does_not_change_kernels_that_do_not_learn():
    model = network()
    optimizer = optimizers.build("muon", model, lr=0.1, momentum=0.9, weight_decay=0.5, normalise_weights=True)
    for layer in (model[3], model[6]):
        layer.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, steps=2)
    assert torch.equal(model[3].weight, before["3.weight"])
    assert not torch.equal(model[7].weight, before["7.weight"])


def test_parameters_that_do_not_learn_are_not_changed():
    model = network()
    model[3].weight.requires_grad_(False)
    for name in optimizers.OPTIMIZERS:
        before = model[3].weight.clone()
        train(model, optimizers.build(name, model, lr=0.1, momentum=0.9, weight_decay=0.5), steps=2)
        assert torch.equal(model[3].weight, before)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_from_a_gpu_continues_with_the_kernels_of_this_device(name):
    model = network()
    optimizer = optimizers.build(name, model, lr=0.02, momentum=0.9, weight_decay=0.01)
    train(model, optimizer, steps=2)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["fused"] = True  # as on a GPU
    optimizer.load_state_dict(state)
    assert [group["fused"] for group in optimizer.param_groups] == [None] * len(optimizer.param_groups)
