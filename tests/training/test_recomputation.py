"""A training that keeps fewer activations is the same training, to the bit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.synthetic import splits
from pipeline import models, settings
from pipeline.params import TrainParams
from pipeline.training import costs, preflight, recomputation
from pipeline.training.recipe import Recipe
from pipeline.training.update import train_step
from tests.training.test_state import assert_equal, whole


def dropping(name, rate=0.3):
    """A small network with dropout in its blocks."""
    torch.manual_seed(0)
    model = models.build(name, num_classes=4, image_size=16, width=4, patch_size=4, dim=16, depth=2, heads=2).train()
    for block in recomputation.blocks(model):
        if isinstance(block, nn.Sequential):
            block.append(nn.Dropout(rate))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
    return model


def updated(model, precision, num_updates=3):
    """The losses of some updates of `model`, its state after them, and the random state."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(num_updates):
        images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
        losses.append(float(train_step(model, images, labels, optimizer, precision, 0.1, accumulate=2)[0]))
    return losses, model.state_dict(), torch.get_rng_state()


@pytest.mark.parametrize(("name", "precision"), [("resnet9", "fp32"), ("vit", "fp32"), ("vit", "bf16")])
def test_recomputation_changes_no_loss_no_statistic_and_no_random_draw(name, precision):
    plain = dropping(name)
    recomputed = copy.deepcopy(plain)
    recomputation.recompute(recomputed)
    for network in (recomputed, copy.deepcopy(recomputed)):
        losses, state, random = updated(copy.deepcopy(plain), precision)
        its_losses, its_state, its_random = updated(network, precision)
        assert its_losses == losses
        assert list(its_state) == list(state) and all(torch.equal(its_state[each], state[each]) for each in state)
        assert torch.equal(its_random, random)


@pytest.mark.parametrize(
    "recipe",
    [{"model": "resnet9", "freeze": 2, "unfreeze_epoch": 2, "ema": True}, {"model": "resnet9", "freezes_norms": True}],
)
def test_recomputation_does_not_change_a_training_with_frozen_parts_and_an_average(recipe):
    assert_equal(whole(**recipe, recomputes=True), whole(**recipe))


def kept(model):
    """The bytes that the backward pass of an update on two images needs, without the weights."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    found = {}

    def keep(tensor):
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            found[place] = tensor  # kept alive, so that its address is not used again
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(2, 3, 64, 64))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def test_an_update_keeps_what_enters_the_blocks_and_one_block():
    outline = models.outline("resnet18", num_classes=10, image_size=64, width=8).to("meta").train()
    model = models.build("resnet18", num_classes=10, image_size=64, width=8).train()
    largest, everything = costs.kept(copy.deepcopy(outline), 64, "fp32", True), costs.kept(outline, 64, "fp32")
    recomputation.recompute(model)
    assert kept(model) / 2 < largest < 0.6 * everything


def recipe(**given):
    params = TrainParams(checkpoint_activations="on", **given)
    return Recipe(params, splits(64, size=params.image_size), torch.device("cpu"), "fp32")


def test_a_network_of_single_layers_is_refused_before_it_is_built():
    with pytest.raises(ValueError, match=r"^checkpoint_activations=on: VGG consists of single layers"):
        preflight.describe(recipe(model="vgg11", batch_size=32))


def test_recomputation_is_no_part_of_the_fingerprint():
    params = TrainParams()
    assert recipe().fingerprint() == replace(recipe(), params=params).fingerprint()
    assert settings.differences(params.model_dump(), recipe().params) == []


def test_recomputation_makes_room_for_a_larger_batch_and_the_warning_says_so():
    large = recipe(model="resnet18", image_size=224, batch_size=10**6)
    (line,) = preflight.warnings(large)
    (plain,) = preflight.warnings(
        replace(large, params=large.params.model_copy(update={"checkpoint_activations": "off"}))
    )
    assert plain.endswith("or give checkpoint_activations=on or a larger accumulate")
    assert line.endswith("or give a larger accumulate")
    fits = [int(each.split("batch_size=")[-1].split()[0]) for each in (line, plain)]
    assert fits[0] > 1.5 * fits[1]  # other programs may take memory meanwhile
