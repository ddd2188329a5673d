"""Frozen stages do not change, and stages may learn at lower rates than the head."""

import copy
from itertools import pairwise

import pytest
import torch

from pipeline import models
from pipeline.models.stages import Frozen, stages
from pipeline.training import optimizers, range_test
from pipeline.training.events import EpochEnd
from tests.training.test_range_test import climbing
from tests.training.test_state import small_training


def small(name="resnet9"):
    torch.manual_seed(0)
    return models.build(name, num_classes=4, image_size=16, width=4)


def moved(before, after):
    """The stages and the head that have changed, including the statistics of their norms."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_frozen_stages_keep_weights_and_statistics_until_their_epoch_comes(optimizer):
    training = small_training(optimizer=optimizer, freeze=2, unfreeze_epoch=3)
    states = [copy.deepcopy(training.state_dict()["model"])]
    for event in training.events():
        if isinstance(event, EpochEnd):
            states.append(copy.deepcopy(training.state_dict()["model"]))
    changes = [moved(*pair) for pair in pairwise(states)]
    rest = {"layer2", "layer3", "head"}
    assert changes == [rest, rest, {"stem", "layer1", *rest}]


def test_with_a_frozen_backbone_only_the_head_learns():
    training = small_training(freeze=None)
    before = copy.deepcopy(training.state_dict()["model"])
    list(training.events())
    assert moved(before, training.state_dict()["model"]) == {"head"}


def test_frozen_norms_keep_their_statistics_and_learn_scale_and_shift():
    training = small_training(freezes_norms=True)
    before = copy.deepcopy(training.state_dict()["model"])
    list(training.events())
    after = training.state_dict()["model"]
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if "running_" in name or "num_batches" in name}


def test_dropout_is_off_in_frozen_stages_and_on_in_the_head():
    model = models.outline("vgg11", num_classes=2, image_size=32).train()
    Frozen(model, None, 0).begin(1)
    assert {name: layer.training for name, layer in model.classifier.named_children() if "Drop" in str(layer)} == {
        "2": False,
        "5": True,
    }


def test_a_layer_that_never_learns_stays_frozen():
    model = small("fast")
    frozen = Frozen(model, 2, until_epoch=2)
    frozen.begin(1)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("whiten", "layer1")) for name in learning)
    frozen.begin(2)
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["whiten.weight"]


def test_freezing_more_stages_than_the_network_has_is_refused():
    with pytest.raises(ValueError, match=r"freeze=5: the network has 4 stages before its head \(stem, layer1, layer2"):
        Frozen(small(), 5, 0)


def test_a_range_test_does_not_change_frozen_stages():
    model = small()
    before = copy.deepcopy(model.state_dict())
    range_test.climb(climbing(model, frozen=Frozen(model, 3, 0)), 60)
    assert moved(before, model.state_dict()) == {"layer3", "head"}


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_stage_learns_at_a_share_of_the_rate_of_the_next(name):
    model = small()
    optimizer = optimizers.build(name, model, lr=0.1, momentum=0.9, weight_decay=0.1, bias_lr=2.0, lr_decay=0.5)
    factors = {"stem": 1 / 16, "layer1": 1 / 8, "layer2": 1 / 4, "layer3": 1 / 2, "head": 1}
    shapes = {}
    for part in factors:
        for parameter in getattr(model, part).parameters():
            shapes.setdefault((parameter.numel(), parameter.ndim > 1), set()).add(factors[part])
    seen = set()
    for group in optimizer.param_groups:
        decays = group["weight_decay"] > 0
        factor = group["rate_factor"] / (1 if decays else 2)
        assert group["lr"] == pytest.approx(0.1 * group["rate_factor"])
        for parameter in group["params"]:
            assert factor in shapes[parameter.numel(), decays]
            seen.add(factor)
    assert seen == set(factors.values())
    assert [stage.name for stage in stages(model)] == ["stem", "layer1", "layer2", "layer3"]
